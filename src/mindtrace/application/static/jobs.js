/* "Jobs": what trains, what waits, what has ended; and a form for the next one. */

import { ask } from "./api.js";
import { button, byId, el, pause, visible } from "./dom.js";
import { JobView, registered, stateWord } from "./job.js";
import { tell } from "./problem.js";
import { submitForm } from "./submit.js";
import { when } from "./words.js";

const [OFTEN, SELDOM] = [2, 8]; // seconds between two looks, while something goes on and not
let view = null; // of the job that was chosen
let cursor = null; // behind the jobs that are shown
let older = []; // those that the user asked for
let watching = false;

/** The function that is returned loads the list when the view is opened, and keeps it fresh. */
export function startJobs() {
  byId("submit").replaceChildren(submitForm(async (job) => {
    await load();
    choose(job.job_id);
  }));
  addEventListener("job", () => void load(true));
  return () => {
    void load();
    if (!watching) void keepFresh();
  };
}

async function keepFresh() {
  watching = true;
  for (;;) {
    const busy = byId("jobs-list").querySelector('[data-state="running"], [data-state="queued"]');
    await pause(busy ? OFTEN : SELDOM);
    if (visible() && !byId("jobs").hidden) await load(true);
  }
}

async function load(quiet = false) {
  try {
    const { data } = await ask("/jobs", { quiet });
    byId("jobs-problem").replaceChildren();
    if (older.length === 0) cursor = data.next_cursor;
    const last = data.items.at(-1)?.job_id;
    show([...data.items, ...older.filter((job) => job.job_id < last)]);
  } catch (error) {
    if (error.status === 404) return showAbsent();
    // What a clock asked in vain, the header tells already.
    if (!quiet || error.status > 0) tell(byId("jobs-problem"), error);
  }
}

function show(jobs) {
  const focused = document.activeElement?.dataset?.job;
  byId("jobs-list").replaceChildren(
    jobs.length === 0
      ? el("p", { class: "card soft" }, "No job yet. The form below submits one.")
      : el("ul", { class: "card joblist" }, jobs.map(entry)),
    ...(cursor ? [button("Older jobs", loadOlder, { class: "quiet" })] : []),
  );
  // The list was made anew below the user's fingers: the keyboard stays where it was.
  if (focused) byId("jobs-list").querySelector(`[data-job="${focused}"]`)?.focus();
  const current = jobs.find((job) => job.job_id === view?.id);
  if (current) view.update(current);
  else if (view === null && jobs.length > 0) choose(jobs[0].job_id);
}

async function loadOlder() {
  try {
    const { data } = await ask(`/jobs?cursor=${encodeURIComponent(cursor)}`);
    older.push(...data.items);
    cursor = data.next_cursor;
    await load();
  } catch (error) {
    tell(byId("jobs-problem"), error);
  }
}

function entry(job) {
  const { epoch, max_epochs: last } = job.progress;
  const done = job.state === "running" && epoch !== null && last ? epoch / last : null;
  return el("li", {},
    button([
      stateWord(job),
      el("span", { class: "what" }, outcome(job)),
      el("span", { class: "soft small" }, when(job.submitted_at)),
      done !== null && el("progress", { max: 1, value: done, "aria-label": "Share of its epochs" }),
    ], () => {
      choose(job.job_id);
      byId("job").scrollIntoView({ block: "nearest" });
    }, {
      "data-job": job.job_id,
      "aria-current": job.job_id === view?.id ? "true" : null,
    }));
}

/** In few words how far a job is, or what became of it. */
function outcome(job) {
  const { epoch, max_epochs: last } = job.progress;
  if (job.state !== "running" || epoch === null) return registered(job);
  return last ? `epoch ${epoch} of ${last}` : `epoch ${epoch}`;
}

function choose(id) {
  for (const one of byId("jobs-list").querySelectorAll("[data-job]")) {
    if (one.dataset.job === id) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  }
  if (view?.id === id) return;
  view?.leave();
  view = new JobView(byId("job"), id);
}

function showAbsent() {
  byId("jobs-list").replaceChildren();
  byId("submit").hidden = true;
  byId("jobs-problem").replaceChildren(
    el("p", { class: "card" }, "This server has no such part: it trains no jobs."),
  );
}
