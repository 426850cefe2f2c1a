/* One job: its curve as it grows, its log, its end. */

import { ask, request } from "./api.js";
import { curve } from "./curve.js";
import { Decision } from "./dialog.js";
import { button, el, pause, say } from "./dom.js";
import { events } from "./events.js";
import { problemBox, tell } from "./problem.js";
import { lookSoon } from "./status.js";
import { count, duration, when } from "./words.js";

const ENDED = ["succeeded", "failed", "cancelled"];

/** Whether nothing more will happen to a job. */
export const hasEnded = (job) => ENDED.includes(job.state);

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
    this.head = el("div", {});
    this.curve = el("div", {});
    this.problem = el("div", {});
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
    if (this.job !== null && hasEnded(this.job)) return;
    if (this.job !== null && hasEnded(job)) {
      say(`The job has ${job.state}`);
      this.asked?.box.close(); // there is nothing to cancel any more
      lookSoon();
    }
    this.job = job;
    const { epoch, val_acc: accuracy } = job.progress;
    if (epoch !== null && accuracy !== null) this.values.set(epoch, accuracy);
    this.#show();
  }

  async #follow() {
    const { signal } = this.leaving;
    try {
      this.update((await ask(this.path, { signal })).data);
      for await (const { event, data } of events(`${this.path}/events`, signal)) {
        if (event === "epoch") this.#epoch(data);
        else this.update(data);
        if (event !== "epoch") dispatchEvent(new Event("job"));
      }
    } catch (error) {
      // Without a stream the list still tells how far it is.
      if (!signal.aborted && error.status !== 404) tell(this.problem, error);
    }
  }

  #epoch({ epoch, metrics }) {
    if (typeof metrics.val_acc === "number") this.values.set(epoch, metrics.val_acc);
    this.#show();
  }

  /** Draw at the next frame: the epochs of a small network come faster than anybody looks. */
  #show() {
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
    if (job.error) this.problem.replaceChildren(problemBox(new JobFault(job.error)));
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
        job.promotion && el("p", {}, promotion(job.promotion))),
      job.cancelling
        ? el("p", { class: "soft" }, "Cancelling…")
        : !hasEnded(job) && button("Cancel…", () => void this.#cancel(), { class: "danger" }));
  }

  async #cancel() {
    const dialog = (this.asked = new Decision("Cancel this job?"));
    const cancel = async () => {
      try {
        this.update((await ask(this.path, { method: "DELETE" })).data);
        dialog.done();
        say("The job is being cancelled");
      } catch (error) {
        dialog.problem.replaceChildren(problemBox(error));
      }
    };
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
      const over = this.job !== null && hasEnded(this.job);
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
      if (error.name !== "AbortError") tell(this.problem, error);
    }
  }
}

/** Why a job has failed, in the shape of other refusals. */
class JobFault extends Error {
  status = null;
  headline = "The job has failed";

  constructor({ message, hint }) {
    super(message);
    this.hint = hint ?? null;
  }
}

function promotion({ promoted, verdict, message }) {
  const words = promoted ? "It is champion now." : message ?? "It has not become champion.";
  return [verdict && el("strong", { class: `verdict-word ${verdict}` }, verdict), ` ${words}`];
}
