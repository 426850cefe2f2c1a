/*
 * From strokes to the picture that is sent: drawn as the training images were. A network that
 * has learnt MNIST expects what MNIST's authors made of every digit: light on dark, scaled to fit
 * 20 x 20 pixels, its centre of mass in the middle of 28 x 28. (Y. LeCun, C. Cortes, C. Burges,
 * "The MNIST database of handwritten digits".) Those of the digits data fill the height of 8 x 8
 * pixels, and drawn like MNIST's they are hardly ever recognised. The width of the pen counts.
 */

import { el, say } from "./dom.js";

const LARGEST = 4; // a drawing is enlarged so much at most: a dot stays a dot

const STYLES = {
  mnist: {
    side: 28, most: [20, 20], pen: 2.6, byMass: true,
    words: "Sent as MNIST has its digits: light on dark, 20 pixels high or wide, " +
      "its centre of mass in the middle of 28\u00a0×\u00a028.",
  },
  digits: {
    side: 8, most: [7, 8], pen: 1.1, byMass: false,
    words: "Sent as the digits data has its digits: light on dark, " +
      "as high as its 8\u00a0×\u00a08 pixels.",
  },
};

/** How to frame for a network with this input. */
export const styleOf = ({ height }) => (height === 8 ? STYLES.digits : STYLES.mnist);

/** The PNG of strokes in base64; `strokes` are lists of points [x, y] from 0 to 1. */
export function framed(strokes, { side, most, pen, byMass }) {
  const box = [0, 1].map((axis) => extent(strokes.flat().map((point) => point[axis])));
  const scales = box.map(([low, high], axis) => (most[axis] - pen) / (high - low));
  const scale = Math.min(...scales, LARGEST * side);
  const size = box.map(([low, high]) => scale * (high - low));
  // A canvas makes greys of what covers a pixel in part, as a scanner does.
  const drawn = (origin) => {
    const context = blackboard(el("canvas", { width: side, height: side }), pen);
    trace(context, strokes, (point) =>
      point.map((value, axis) => origin[axis] + (value - box[axis][0]) * scale));
    return context;
  };
  const origin = size.map((length) => (side - length) / 2);
  let picture = drawn(origin);
  if (byMass) {
    const mass = centreOfMass(picture.getImageData(0, 0, side, side).data, side);
    // Shifted, but never out of the picture.
    picture = drawn(origin.map((start, axis) => {
      const last = Math.max(pen / 2, side - size[axis] - pen / 2);
      return clamp(start + side / 2 - mass[axis], pen / 2, last);
    }));
  }
  return picture.canvas.toDataURL("image/png").split(",")[1];
}

/** Draw strokes as smooth lines; `place` turns a point of 0 to 1 into one of the canvas. */
function trace(context, strokes, place) {
  for (const stroke of strokes) {
    const points = stroke.map(place);
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) {
      const [[x, y], [nextX, nextY]] = [points[i], points[i + 1]];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    // A line of no length would not be drawn, and a dot is one.
    context.lineTo(points.at(-1)[0] + 0.01, points.at(-1)[1]);
    context.stroke();
  }
}

/** A canvas that is black, with a white round pen. */
function blackboard(canvas, pen) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const round = { lineCap: "round", lineJoin: "round" };
  return Object.assign(context, { strokeStyle: "#fff", lineWidth: pen, ...round });
}

function centreOfMass(data, width) {
  let [sum, x, y] = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) {
    const pixel = i / 4;
    sum += data[i];
    x += data[i] * ((pixel % width) + 0.5);
    y += data[i] * (Math.floor(pixel / width) + 0.5);
  }
  return [x / sum, y / sum];
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const extent = (values) => [Math.min, Math.max].map((end) => values.reduce((a, b) => end(a, b)));

/* The pad: mouse, finger, pen or arrow keys make strokes, lists of points from 0 to 1. */

const SIDE = 560; // pixels of the canvas, whatever its size on the screen
const PEN = 0.075;
const STEP = 1 / 28;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  /** `changed` is called when a stroke ends, is taken back, or all are. */
  constructor(canvas, changed) {
    Object.assign(canvas, { width: SIDE, height: SIDE });
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.pointer = null; // id of the one that draws; a second finger does not
    this.cursor = null; // where the arrow keys are, once they are used
    this.down = false; // whether the arrow keys draw
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#end(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      this.#lift();
      this.cursor = null;
      this.#paint();
    });
    this.#paint();
  }

  clear() {
    this.#keep([]);
  }

  undo() {
    this.#keep(this.strokes.slice(0, -1));
  }

  #keep(strokes) {
    this.strokes = strokes;
    this.down = false;
    this.#paint();
    this.changed();
  }

  #begin(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.#lift();
    this.cursor = null;
    this.strokes.push([this.#place(event)]);
    this.#paint();
  }

  #move(event) {
    if (event.pointerId !== this.pointer) return;
    // All the places since the last frame, so that a quick line has no corners.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.strokes.at(-1).push(this.#place(one));
    this.#paint();
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.changed();
  }

  #place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [inside((event.clientX - left) / width), inside((event.clientY - top) / height)];
  }

  #key(event) {
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else if (event.key in ARROWS) this.#step(ARROWS[event.key]);
    else if (event.key === " " || event.key === "Enter") this.#toggle();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else return;
    event.preventDefault();
  }

  #step([x, y]) {
    const [fromX, fromY] = (this.cursor ??= [0.5, 0.5]);
    this.cursor = [inside(fromX + x * STEP), inside(fromY + y * STEP)];
    if (this.down) this.strokes.at(-1).push(this.cursor);
    this.#paint();
  }

  #toggle() {
    this.cursor ??= [0.5, 0.5];
    if (this.down) return this.#lift();
    this.down = true;
    this.strokes.push([this.cursor]);
    this.#paint();
    const [column, row] = this.cursor.map((value) => Math.round(value / STEP));
    say(`Pen down at column ${column}, row ${row} of 28`);
  }

  #lift() {
    if (this.down) this.#keep(this.strokes);
  }

  #paint() {
    const context = blackboard(this.canvas, PEN * SIDE);
    trace(context, this.strokes, ([x, y]) => [x * SIDE, y * SIDE]);
    if (this.cursor === null) return;
    context.lineWidth = 4;
    context.strokeStyle = this.down ? "#ffd43b" : "#74a2ff";
    context.beginPath();
    context.arc(this.cursor[0] * SIDE, this.cursor[1] * SIDE, (PEN * SIDE) / 2 + 4, 0, 2 * Math.PI);
    context.stroke();
  }
}

const inside = (value) => clamp(value, 0, 1);
