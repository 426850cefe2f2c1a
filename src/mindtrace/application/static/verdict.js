/* What the gate says of two versions, in words, figures and a line. */

import { el, svg } from "./dom.js";
import { count, percent, points } from "./words.js";

const MEANING = {
  PROMOTE: "It is not worse.",
  HOLD: "This test set cannot tell.",
  REJECT: "It is worse.",
};

/** The verdict with its reasons; `verdict` is null where there was nothing to compare with. */
export function verdictBox(verdict, reasons) {
  return el("div", { class: `verdict ${verdict ?? ""}` },
    el("strong", {}, verdict ?? "No comparison"),
    verdict && el("span", {}, ` ${MEANING[verdict]}`),
    reasons.map((reason) => el("p", { class: "small" }, reason)));
}

/** The figures of a comparison, and its interval as a line. */
export function figures(comparison) {
  const p = comparison.mcnemar_p;
  const rows = [
    [`Accuracy of ${comparison.a}`, percent(comparison.acc_a, 2)],
    [`Accuracy of ${comparison.b}`, percent(comparison.acc_b, 2)],
    ["Difference, points", coloured(comparison.diff)],
    ["p (McNemar)", p < 1e-4 ? "< 0.0001" : p.toFixed(4)],
    ["Newly right", comparison.wrong_to_right.toLocaleString("en")],
    ["Newly wrong", comparison.right_to_wrong.toLocaleString("en")],
  ].map(([word, value]) => el("div", {}, el("dt", {}, word), el("dd", {}, value)));
  return [el("dl", {}, rows), interval(comparison)];
}

/** A difference of accuracies, green or red. */
export const coloured = (value) =>
  el("span", { class: value > 0 ? "up" : value < 0 ? "down" : "soft" }, points(value));

function interval({ ci: [low, high], diff, margin = 0.01, n, minimum_detectable: least }) {
  const reach = 1.15 * Math.max(Math.abs(low), Math.abs(high), margin, 1e-4);
  const at = (value) => 300 + (280 * value) / reach;
  const words =
    `${points(diff)} points, between ${points(low)} and ${points(high)} with 95 % confidence. ` +
    `${count(n, "test image")} can show a difference of ${points(least).slice(1)} or more.`;
  const mark = (value, kind) =>
    svg("line", { x1: at(value), x2: at(value), y1: 14, y2: 46, class: kind });
  return el("figure", { class: "interval" },
    svg("svg", { viewBox: "0 0 600 60", role: "img", "aria-label": words },
      svg("line", { x1: 20, x2: 580, y1: 30, y2: 30, class: "axis" }),
      mark(0, "zero"), mark(-margin, "margin"),
      svg("line", { x1: at(low), x2: at(high), y1: 30, y2: 30, class: "range" }),
      svg("circle", { cx: at(diff), cy: 30, r: 8, class: "point" })),
    el("figcaption", { class: "soft small" }, words,
      " Dashed: the gate's margin."));
}
