/* The form for a training: its configuration is checked as one types. */

import { ask } from "./api.js";
import { button, el, say } from "./dom.js";
import { problemBox } from "./problem.js";

const BEGIN = "[data]\nsource = digits\n\n[train]\nmax_epochs = 10\n";
const QUIET = 350; // milliseconds without a key, then it is checked

/** The form; `submitted` is called with the new job. */
export function submitForm(submitted) {
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
  let key = newKey();

  function changed() {
    key = newKey();
    clearTimeout(timer);
    checking.abort();
    timer = setTimeout(() => void look(), QUIET);
  }

  async function look() {
    checking = new AbortController();
    const { signal } = checking;
    try {
      await ask("/retrain/check", { method: "POST", json: body(), signal, quiet: true });
      show([el("p", { class: "up" }, "This can be trained.")], false);
    } catch (error) {
      if (signal.aborted) return;
      show([error.status === 422 ? faults(error) : problemBox(error)], error.status === 422);
    }
  }

  async function submit(event) {
    event.preventDefault();
    clearTimeout(timer);
    checking.abort();
    send.disabled = true;
    try {
      const headers = { "Idempotency-Key": key };
      const { data } = await ask("/retrain", { method: "POST", json: body(), headers });
      key = newKey();
      show([], false);
      say("The job was submitted");
      submitted(data);
    } catch (error) {
      show([error.status === 422 ? faults(error) : problemBox(error)], error.status === 422);
    } finally {
      send.disabled = false;
    }
  }

  function show(content, wrong) {
    text.setAttribute("aria-invalid", `${wrong}`);
    check.replaceChildren(...content);
  }

  function faults(error) {
    const rows = error.errors.length ? [...error.errors] : [{ message: error.message }];
    rows.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
    return el("ul", { class: "faults" }, rows.map((fault) => el("li", {},
      fault.line ? button(`line ${fault.line}`, () => goTo(fault.line), { class: "quiet" }) : null,
      fault.message)));
  }

  function goTo(line) {
    const lines = text.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    text.focus();
    text.setSelectionRange(start, start + lines[line - 1].length);
  }

  const body = () => ({
    config: text.value,
    ...(base.value.trim() && { base: base.value.trim() }),
    ...(base.value.trim() && warm.checked && { warm_start: true }),
    ...(force.checked && { force: true }),
  });

  return el("form", { class: "card", onsubmit: submit },
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
function newKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
