/* What the server serves, looked at every few seconds: in the header, and as an event. */

import { byId, pause, visible } from "./dom.js";

const EVERY = 4; // seconds
let served = null;
let hurry = 0;
let wake = () => {};

/** The version that answers now: `{model_name, version}`, or null. */
export const servedNow = () => served;

/** Look often for a while: something is about to change. */
export function lookSoon() {
  hurry = 12;
  wake();
}

/** Look for ever; a version that takes another's place is told by the event `served`. */
export async function watch() {
  for (;;) {
    if (visible()) show(await look());
    const seconds = hurry-- > 0 ? 0.5 : EVERY;
    await Promise.race([pause(seconds), new Promise((done) => (wake = done))]);
  }
}

async function look() {
  try {
    const response = await fetch("/healthz/ready", { cache: "no-store" });
    return { response, found: await response.json() };
  } catch {
    return { response: null, found: {} };
  }
}

function show({ response, found }) {
  const state = response === null ? "gone" : response.ok ? "ready" : "waiting";
  const waiting = found.type?.endsWith(":no-version") ? "no version yet" : "not ready";
  const text = { gone: "no answer", waiting, ready: `serving ${nameOf(found)}` }[state];
  const pill = byId("status");
  if (pill.dataset.state !== state || byId("status-text").textContent !== text) {
    pill.dataset.state = state;
    byId("status-text").textContent = text;
    byId("gone").hidden = state !== "gone";
  }
  const now = state === "ready" ? found : null;
  const changed = now !== null && nameOf(now) !== (served === null ? null : nameOf(served));
  if (state !== "gone") served = now;
  if (changed) dispatchEvent(new Event("served"));
}

const nameOf = ({ model_name: name, version }) => (name ? `${name}/${version}` : "a bundle");
