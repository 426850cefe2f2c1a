/*
 * From strokes to the picture that is sent: drawn as the training images were.
 *
 * A network that has learnt MNIST expects what MNIST's authors made of every digit: light
 * on dark, scaled to fit 20 x 20 pixels, its centre of mass in the middle of 28 x 28.
 * (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".) Those of
 * the digits data fill the height of 8 x 8 pixels, and drawn like MNIST's they are hardly
 * ever recognised. The width of the pen is part of it.
 */

import { say } from "./dom.js";

const FINE = 8; // drawn so many times finer, then averaged: greys as a scanner makes them
const LARGEST = 4; // a drawing is enlarged so much at most: a dot stays a dot

const STYLES = {
  mnist: {
    side: 28, width: 20, height: 20, pen: 2.6, centre: "mass",
    words: "Sent as MNIST has its digits: light on dark, 20 pixels high or wide, " +
      "its centre of mass in the middle of 28\u00a0×\u00a028.",
  },
  digits: {
    side: 8, width: 7, height: 8, pen: 1.1, centre: "box",
    words: "Sent as the digits data has its digits: light on dark, " +
      "as high as its 8\u00a0×\u00a08 pixels.",
  },
};

/** How to frame for a network that has learnt from `source`; as MNIST if that is not known. */
export const styleOf = (source) => STYLES[source] ?? STYLES.mnist;

/** The PNG of strokes in base64; `strokes` are lists of points [x, y] from 0 to 1. */
export function framed(strokes, style) {
  const box = boundsOf(strokes);
  const side = style.side;
  const scale = Math.min(
    (style.width - style.pen) / (box.right - box.left),
    (style.height - style.pen) / (box.bottom - box.top),
    LARGEST * side,
  );
  const half = style.pen / 2;
  const size = { x: (box.right - box.left) * scale, y: (box.bottom - box.top) * scale };
  let origin = { x: (side - size.x) / 2, y: (side - size.y) / 2 };
  let fine = drawn(strokes, box, scale, origin, style);
  if (style.centre === "mass") {
    const mass = centreOfMass(fine, side * FINE);
    // Shifted, but never out of the picture.
    origin = {
      x: clamp(origin.x + side / 2 - mass.x / FINE, half, side - size.x - half),
      y: clamp(origin.y + side / 2 - mass.y / FINE, half, side - size.y - half),
    };
    fine = drawn(strokes, box, scale, origin, style);
  }
  return averaged(fine, side).toDataURL("image/png").split(",")[1];
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
  Object.assign(context, { strokeStyle: "#fff", lineWidth: pen });
  Object.assign(context, { lineCap: "round", lineJoin: "round" });
  return context;
}

function drawn(strokes, box, scale, origin, style) {
  const canvas = newCanvas(style.side * FINE);
  const context = blackboard(canvas, style.pen * FINE);
  trace(context, strokes, ([x, y]) => [
    FINE * (origin.x + (x - box.left) * scale),
    FINE * (origin.y + (y - box.top) * scale),
  ]);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

function boundsOf(strokes) {
  const xs = strokes.flat().map(([x]) => x);
  const ys = strokes.flat().map(([, y]) => y);
  const [left, right, top, bottom] = [lowest(xs), highest(xs), lowest(ys), highest(ys)];
  return { left, right, top, bottom };
}

function centreOfMass(data, width) {
  let [sum, x, y] = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) {
    const pixel = i / 4;
    sum += data[i];
    x += data[i] * ((pixel % width) + 0.5);
    y += data[i] * (Math.floor(pixel / width) + 0.5);
  }
  return { x: x / sum, y: y / sum };
}

function averaged(fine, side) {
  const canvas = newCanvas(side);
  const context = blackboard(canvas, 1);
  const image = context.getImageData(0, 0, side, side);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = 4 * (y * side + x);
      image.data.fill(meanOf(fine, x, y, side), at, at + 3);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function meanOf(fine, column, row, side) {
  let sum = 0;
  for (let y = row * FINE; y < (row + 1) * FINE; y++) {
    const left = y * side * FINE + column * FINE;
    for (let at = left; at < left + FINE; at++) sum += fine[4 * at];
  }
  return Math.round(sum / FINE ** 2);
}

function newCanvas(side) {
  return Object.assign(document.createElement("canvas"), { width: side, height: side });
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));
const lowest = (values) => values.reduce((a, b) => Math.min(a, b));
const highest = (values) => values.reduce((a, b) => Math.max(a, b));

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
    canvas.addEventListener("blur", () => this.#leave());
    this.#paint();
  }

  clear() {
    this.strokes = [];
    this.down = false;
    this.#paint();
    this.changed();
  }

  undo() {
    this.strokes.pop();
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
    const box = this.canvas.getBoundingClientRect();
    return [
      inside((event.clientX - box.left) / box.width),
      inside((event.clientY - box.top) / box.height),
    ];
  }

  #key(event) {
    const undo = event.key === "z" && (event.ctrlKey || event.metaKey);
    if (undo) this.undo();
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
    if (!this.down) return;
    this.down = false;
    this.#paint();
    this.changed();
  }

  #leave() {
    this.#lift();
    this.cursor = null;
    this.#paint();
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

const inside = (value) => Math.min(Math.max(value, 0), 1);
