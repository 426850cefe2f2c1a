/* The curve of a training: validation accuracy by epoch. */

import { el, svg } from "./dom.js";
import { percent } from "./words.js";

const DOTS = 60; // of more epochs only the line is drawn
const [HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [200, 62, 30, 14, 14];

/** Draw it; `values` is a Map of epoch to accuracy, `last` the epoch it will go to. */
export function curve(values, last) {
  const points = [...values].sort(([a], [b]) => a - b);
  if (points.length === 0) {
    return el("p", { class: "soft" }, "The curve begins with the first epoch.");
  }
  const accuracies = points.map(([, value]) => value);
  const [low, high] = range(Math.min(...accuracies), Math.max(...accuracies));
  const width = Math.min(600, innerWidth - 70); // so that its words keep their size on a phone
  const end = Math.max(last ?? 1, points.at(-1)[0], 2);
  const x = (epoch) => LEFT + ((width - LEFT - RIGHT) * (epoch - 1)) / (end - 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const digits = high - low < 0.05 ? 1 : 0;
  const [epoch, value] = points.at(-1);
  const words = `Validation accuracy ${percent(value)} after epoch ${epoch}`;
  return el("figure", { class: "curve" },
    svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words },
      [low, (low + high) / 2, high].map((tick) => [
        svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }),
        svg("text", { x: LEFT - 8, y: y(tick) + 5, "text-anchor": "end" }, percent(tick, digits)),
      ]),
      svg("text", { x: LEFT, y: HEIGHT - 6 }, "epoch 1"),
      svg("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `${end}`),
      svg("polyline", { points: points.map(([e, v]) => `${x(e)},${y(v)}`), class: "line" }),
      points.length <= DOTS &&
        points.map(([e, v]) => svg("circle", { cx: x(e), cy: y(v), r: 3.5, class: "dot" }))),
    el("figcaption", { class: "soft small" }, `${words}.`));
}

/** A round range around the values, at least two points of a hundred wide. */
function range(least, most) {
  const step = most - least > 0.2 ? 0.1 : most - least > 0.04 ? 0.02 : 0.01;
  const low = Math.max(0, Math.floor(least / step) * step);
  const high = Math.min(1, Math.max(Math.ceil(most / step) * step, low + 2 * step));
  return [Math.min(low, high - 2 * step), high];
}
