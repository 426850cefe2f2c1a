/* "Jobs": what trains, what waits, what has ended; and a form for the next one. */

import { ask, modelPath, rowsOf, servedNow } from "./api.js";
import { button, byId, el, pause, problemBox, say, tell, visible, when } from "./dom.js";
import { JobView, registered, stateWord } from "./job.js";

const PAGE = 20;
const [OFTEN, SELDOM] = [2, 8]; // seconds between two looks, while something goes on and not
let view = null; // of the job that was chosen
let wanted = PAGE; // jobs that the user has asked to see
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
    const { items, more } = await rowsOf("/jobs", wanted, { quiet });
    byId("jobs-problem").replaceChildren();
    show(items, more);
  } catch (error) {
    // What a clock asked in vain, the header tells already.
    if (!quiet || error.status > 0) tell(byId("jobs-problem"), error);
  }
}

function show(jobs, more) {
  const focused = document.activeElement?.dataset?.job;
  byId("jobs-list").replaceChildren(
    jobs.length === 0
      ? el("p", { class: "card soft" }, "No job yet. The form below submits one.")
      : el("ul", { class: "card joblist" }, jobs.map(entry)),
    more ? button("Older jobs", showOlder, { class: "quiet" }) : "",
  );
  // The list was made anew below the user's fingers: the keyboard stays where it was.
  if (focused) byId("jobs-list").querySelector(`[data-job="${focused}"]`)?.focus();
  const current = jobs.find((job) => job.job_id === view?.id);
  if (current) view.update(current);
  else if (view === null && jobs.length > 0) choose(jobs[0].job_id);
}

function showOlder() {
  wanted += PAGE;
  void load();
}

function entry(job) {
  const { epoch, max_epochs: last } = job.progress;
  const runs = job.state === "running" && epoch !== null;
  // In few words how far it is, or what became of it.
  const outcome = runs ? `epoch ${epoch}${last ? ` of ${last}` : ""}` : registered(job);
  return el("li", {},
    button([
      stateWord(job),
      el("span", { class: "what" }, outcome),
      el("span", { class: "soft small" }, when(job.submitted_at)),
      runs && last &&
        el("progress", { max: 1, value: epoch / last, "aria-label": "Share of its epochs" }),
    ], () => {
      choose(job.job_id);
      byId("job").scrollIntoView({ block: "nearest" });
    }, {
      "data-job": job.job_id, "aria-current": job.job_id === view?.id && "true",
    }));
}

function choose(id) {
  for (const one of byId("jobs-list").querySelectorAll("[data-job]")) {
    one.ariaCurrent = one.dataset.job === id ? "true" : null;
  }
  if (view?.id === id) return;
  view?.leave();
  view = new JobView(byId("job"), id);
}

/* The form for a training: its configuration is checked as one types. */

const BEGIN = "[data]\nsource = digits\n\n[train]\nmax_epochs = 10\n";
const USUAL = ["max_epochs", "lr", "seed"]; // of [train]: what one changes in what is served
const QUIET = 350; // milliseconds without a key, then it is checked

/** The form; `submitted` is called with the new job. */
function submitForm(submitted) {
  const text = el("textarea", {
    id: "config", rows: 8, spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    "aria-describedby": "config-hint config-check", oninput: changed,
  });
  text.value = BEGIN;
  const base = el("input", {
    id: "base", placeholder: "NAME/VERSION", spellcheck: "false", autocomplete: "off",
    oninput: changed,
  });
  const warm = el("input", { id: "warm", type: "checkbox", onchange: changed });
  const force = el("input", { id: "force", type: "checkbox", onchange: changed });
  const check = el("div", { id: "config-check", "aria-live": "polite" });
  const send = el("button", { class: "primary" }, "Train");
  let checking = new AbortController();
  let timer = null;
  let touched = false;
  let key = newKey();
  addEventListener("served", () => touched || void prefill().catch(() => {})); // or as it is

  /** Begin with what is served, until the user has begun himself. */
  async function prefill() {
    const { model_name: name, version } = servedNow() ?? {};
    if (!name) return;
    const { data } = await ask(`${modelPath(name)}/versions/${version}`, { quiet: true });
    if (touched || !("train.seed" in data.params)) return;
    base.value = `${name}/${version}`;
    base.closest("details").open = true;
    const lines = USUAL.map((one) => `${one} = ${data.params[`train.${one}`]}\n`);
    text.value = `[train]\n${lines.join("")}`;
  }

  function changed() {
    touched = true;
    key = newKey();
    clearTimeout(timer);
    checking.abort();
    timer = setTimeout(() => void look(), QUIET);
  }

  async function look() {
    checking = new AbortController();
    const found = await post("/retrain/check", { signal: checking.signal, quiet: true });
    if (found) show([el("p", { class: "up" }, "This can be trained.")]);
  }

  async function submit(event) {
    event.preventDefault();
    clearTimeout(timer);
    checking.abort();
    send.disabled = true;
    const job = await post("/retrain", { headers: { "Idempotency-Key": key } });
    send.disabled = false;
    if (!job) return;
    key = newKey();
    show([]);
    say("The job was submitted");
    submitted(job);
  }

  /** What the server answers to this form, or null, and then its faults are shown. */
  async function post(path, options) {
    try {
      return (await ask(path, { method: "POST", json: body(), ...options })).data;
    } catch (error) {
      if (!options.signal?.aborted) showFaults(error);
      return null;
    }
  }

  function show(content, wrong = false) {
    text.setAttribute("aria-invalid", `${wrong}`);
    check.replaceChildren(...content);
  }

  function showFaults(error) {
    if (error.status !== 422) return show([problemBox(error)]);
    const rows = error.errors.length ? [...error.errors] : [error];
    rows.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
    const items = rows.map(({ line, message }) => el("li", {},
      line && button(`line ${line}`, () => goTo(line), { class: "quiet" }), message));
    show([el("ul", { class: "faults" }, items)], true);
  }

  function goTo(line) {
    const lines = text.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    text.focus();
    text.setSelectionRange(start, start + lines[line - 1].length);
  }

  const body = () => ({
    config: text.value,
    ...(base.value.trim() && { base: base.value.trim(), warm_start: warm.checked }),
    force: force.checked,
  });

  // The text never changes below the user's caret.
  return el("form", { class: "card", onsubmit: submit, onfocusin: () => (touched = true) },
    el("h2", {}, "Train a new version"),
    el("label", { for: "config" }, "Configuration"),
    text,
    el("p", { id: "config-hint", class: "soft small" },
      "INI text, laid over the server's own: what is not said here stays as it is there."),
    check,
    el("details", { class: "more" }, el("summary", {}, "Start from a version"),
      el("p", {}, el("label", { for: "base" }, "Its configuration comes first, this text over it"),
        base),
      el("p", {}, warm, el("label", { for: "warm" }, "Begin with its weights, too")),
      el("p", {}, force,
        el("label", { for: "force" }, "Train even if this very training has been done"))),
    el("div", { class: "actions" }, send));
}

/** The same wish sent twice, by a click too many or a lost answer, is one job. */
const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
