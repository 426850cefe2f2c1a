/* The pad: mouse, finger, pen or arrow keys make strokes, lists of points from 0 to 1. */

import { say } from "./dom.js";
import { blackboard, trace } from "./frame.js";

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
