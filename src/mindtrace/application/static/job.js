/* One job: its curve as it grows, its log, its end. */

import { ask, events, lookSoon, request } from "./api.js";
import {
  button, count, Decision, duration, el, pause, percent, problemBox, say, svg, tell, when,
} from "./dom.js";

const hasEnded = (job) => job !== null && ["succeeded", "failed", "cancelled"].includes(job.state);

/** The state of a job in its colour. */
export const stateWord = ({ state }) => el("span", { class: "state", "data-state": state }, state);

/** What a job has registered, in few words; nothing before it has. */
export function registered(job) {
  if (!job.version) return job.model_name ?? "";
  return `${job.model_name ?? "version"}/${job.version}${job.reused ? ", there already" : ""}`;
}

/** The panel of one job; made anew for another. */
export class JobView {
  constructor(place, id) {
    this.id = id;
    this.path = `/jobs/${encodeURIComponent(id)}`;
    this.job = null;
    this.values = new Map();
    this.leaving = new AbortController();
    this.logged = 0; // bytes of the log that are shown
    this.decoder = new TextDecoder();
    this.head = el("div");
    this.curve = el("div");
    this.problem = el("div");
    this.log = el("pre", { tabindex: "0", "aria-label": "Log" });
    this.details = el("details", { ontoggle: () => void this.#keepLog() },
      el("summary", {}, "Log"), this.log);
    place.replaceChildren(
      el("div", { class: "card" }, this.head, this.curve, this.problem, this.details),
    );
    void this.#follow();
  }

  /** Stop following it. */
  leave() {
    this.leaving.abort();
  }

  /** What is heard of this job, from its events and from the list. */
  update(job) {
    if (hasEnded(this.job)) return;
    if (this.job !== null && hasEnded(job)) {
      say(`The job has ${job.state}`);
      this.asked?.box.close(); // there is nothing to cancel any more
      lookSoon();
    }
    this.job = job;
    this.#epoch(job.progress.epoch, job.progress.val_acc);
  }

  async #follow() {
    const { signal } = this.leaving;
    try {
      this.update((await ask(this.path, { signal })).data);
      for await (const { event, data } of events(`${this.path}/events`, signal)) {
        if (event === "epoch") this.#epoch(data.epoch, data.metrics.val_acc);
        else this.update(data);
        if (event !== "epoch") dispatchEvent(new Event("job"));
      }
    } catch (error) {
      // Without a stream the list still tells how far it is.
      if (!signal.aborted && error.status !== 404) tell(this.problem, error);
    }
  }

  /** Draw at the next frame: the epochs of a small network come faster than anybody looks. */
  #epoch(epoch, accuracy) {
    if (epoch !== null && typeof accuracy === "number") this.values.set(epoch, accuracy);
    if (this.waiting || this.job === null) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#draw(this.job);
    });
  }

  #draw(job) {
    const focused = this.head.contains(document.activeElement);
    this.head.replaceChildren(this.#title(job));
    if (focused) this.head.querySelector("button")?.focus();
    const empty = hasEnded(job) && this.values.size === 0;
    this.curve.replaceChildren(empty ? "" : curve(this.values, job.progress.max_epochs));
    if (job.error) {
      const error = { status: null, headline: "The job has failed", ...job.error };
      this.problem.replaceChildren(problemBox(error));
    }
  }

  #title(job) {
    const took = (new Date(job.ended_at ?? Date.now()) - new Date(job.started_at)) / 1000;
    return el("div", { class: "titled" },
      el("div", {},
        el("h2", {}, stateWord(job), ` ${registered(job)}`),
        el("p", { class: "soft small" }, "Submitted ", when(job.submitted_at),
          job.started_at && `, ${hasEnded(job) ? "took" : "at work for"} ${duration(took)}`,
          job.attempts > 1 && `, ${count(job.attempts, "attempt")}`,
          el("br"), el("code", {}, job.job_id)),
        job.promotion && promotion(job.promotion)),
      job.cancelling
        ? el("p", { class: "soft" }, "Cancelling…")
        : !hasEnded(job) && button("Cancel…", () => void this.#cancel(), { class: "danger" }));
  }

  async #cancel() {
    const dialog = (this.asked = new Decision("Cancel this job?"));
    const cancel = () => dialog.carryOut(async () => {
      this.update((await ask(this.path, { method: "DELETE" })).data);
      say("The job is being cancelled");
    });
    dialog.show([el("p", {}, "Its training ends, and nothing is registered.")],
      ["Cancel the job", cancel, "danger"]);
    dialog.actions.firstChild.textContent = "Keep it";
    if (await dialog.closed) dispatchEvent(new Event("job"));
  }

  /** Show the log, and what is added to it, as long as it is open. */
  async #keepLog() {
    const { signal } = this.leaving;
    if (this.keeping) return; // one that pauses sees that it is open again
    this.keeping = true;
    while (this.details.open && !signal.aborted) {
      const over = hasEnded(this.job);
      await this.#loadLog(signal);
      if (over) break;
      await pause(1);
    }
    this.keeping = false;
  }

  /** Fetch what is behind the part that is shown. */
  async #loadLog(signal) {
    const { log } = this;
    try {
      const path = `${this.path}/log?offset=${this.logged}`;
      const bytes = await (await request(path, { signal, quiet: true })).arrayBuffer();
      this.logged += bytes.byteLength;
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.append(this.decoder.decode(bytes, { stream: true }));
      if (atEnd) log.scrollTop = log.scrollHeight;
    } catch (error) {
      tell(this.problem, error);
    }
  }
}

function promotion({ promoted, verdict, message }) {
  const words = promoted ? "It is champion now." : message ?? "It has not become champion.";
  return el("p", {},
    verdict && el("strong", { class: `verdict-word ${verdict}` }, verdict), ` ${words}`);
}

/* The curve of a training: validation accuracy by epoch. */

const DOTS = 60; // of more epochs only the line is drawn
const [HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [200, 62, 30, 14, 14];

/** Draw it; `values` is a Map of epoch to accuracy, `last` the epoch it will go to. */
function curve(values, last) {
  const points = [...values].sort(([a], [b]) => a - b);
  if (points.length === 0) {
    return el("p", { class: "soft" }, "The curve begins with the first epoch.");
  }
  const [low, high] = range(points.map(([, value]) => value));
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
function range(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const step = most - least > 0.2 ? 0.1 : most - least > 0.04 ? 0.02 : 0.01;
  const low = Math.max(0, Math.floor(least / step) * step);
  const high = Math.min(1, Math.max(Math.ceil(most / step) * step, low + 2 * step));
  return [Math.min(low, high - 2 * step), high];
}
