/* Numbers and times as people read them. */

import { el } from "./dom.js";

const NONE = "–";
const STEPS = [
  [60, "second", 1],
  [3600, "minute", 60],
  [86400, "hour", 3600],
  [86400 * 30, "day", 86400],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** 0.9812 is 98.1 %. */
export const percent = (value, digits = 1) =>
  value == null ? NONE : `${(100 * value).toFixed(digits)}\u202f%`;

/** A difference of two shares, in points: 0.0123 is +1.2. */
export const points = (value) => {
  if (value == null) return NONE;
  const text = Math.abs(100 * value).toFixed(1);
  return text === "0.0" ? "0.0" : `${value < 0 ? "\u2212" : "+"}${text}`;
};

export const decimal = (value, digits = 3) => (value == null ? NONE : value.toFixed(digits));

export const count = (value, one, many = `${one}s`) =>
  `${value.toLocaleString("en")} ${value === 1 ? one : many}`;

/** A time of the server, told from now on; the whole of it on hover. */
export function when(iso) {
  if (!iso) return NONE;
  const then = new Date(iso);
  return el("time", { datetime: iso, title: then.toLocaleString() }, ago(then));
}

function ago(then) {
  const seconds = (then - Date.now()) / 1000;
  if (Math.abs(seconds) < 5) return "just now";
  const step = STEPS.find(([limit]) => Math.abs(seconds) < limit);
  if (!step) return then.toLocaleDateString("en", { dateStyle: "medium" });
  return relative.format(Math.round(seconds / step[2]), step[1]);
}

/** How long something took: 75 is 1 min 15 s. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
