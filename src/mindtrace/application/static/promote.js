/*
 * Promote and roll back: the gate is asked first, the user decides, the server changes.
 *
 * Both send the ETag of the history that the decision was made from, so that nobody
 * replaces a champion that he has not seen; where somebody was quicker, the gate is asked
 * again and the user with it.
 */

import { ask, modelPath } from "./api.js";
import { button, count, Decision, el, percent, points, problemBox, say, svg } from "./dom.js";

const STALE = 412;

/** Ask the gate about a version, then the user. Resolves to whether it is champion now. */
export function promoteDialog(name, version) {
  const dialog = new Decision(`Make ${name}/${version} champion?`);
  void decide(dialog, name, version);
  return dialog.closed;
}

async function decide(dialog, name, version, told = null) {
  dialog.wait("Asking the gate…");
  try {
    const etag = await etagOf(name);
    const gate = await dryRun(name, version, etag);
    if (dialog.open) showGate(dialog, { name, version, etag, gate, told });
  } catch (error) {
    if (dialog.open) fail(dialog, error, () => decide(dialog, name, version));
  }
}

function showGate(dialog, { name, version, etag, gate, told }) {
  const passes = gate.verdict === null || gate.verdict === "PROMOTE";
  const reason = reasonField(!passes);
  const promote = async () => {
    if (!reason.input.reportValidity()) return;
    const json = { version, force: !passes, ...reason.given() };
    await change(dialog, `${modelPath(name)}/promote`, json, etag, {
      done: `Version ${version} is champion`,
      again: (told) => decide(dialog, name, version, told),
    });
  };
  dialog.show(
    [
      ...(told ? [problemBox(told)] : []),
      verdictBox(gate.verdict, gate.reasons ?? []),
      ...(gate.comparison ? figures(gate.comparison) : []),
      gate.times_used > 0 && el("p", { class: "soft small" },
        `This test set has decided ${count(gate.times_used, "time")} before; `,
        "each time it tells a little less."),
      reason.label, reason.input,
    ].filter(Boolean),
    passes ? [`Make ${version} champion`, promote, "primary"]
      : ["Promote all the same", promote, "danger"],
  );
}

/** Show what would come back, then ask. Resolves to whether it did. */
export function rollbackDialog(name, history) {
  const dialog = new Decision(`Roll ${name} back?`);
  void confirm(dialog, name, history);
  return dialog.closed;
}

async function confirm(dialog, name, history, told = null) {
  dialog.wait("Looking at the history…");
  try {
    await history.load(name);
    const undone = history.undo();
    const compared = undone && (await comparison(name, history.champion, undone.from));
    if (dialog.open) showRollback(dialog, { name, history, undone, compared, told });
  } catch (error) {
    if (dialog.open) fail(dialog, error, () => confirm(dialog, name, history));
  }
}

function showRollback(dialog, { name, history, undone, compared, told }) {
  const notes = told ? [problemBox(told)] : [];
  if (!undone) {
    dialog.show([...notes, el("p", {}, "There is nothing to roll back.")]);
    return;
  }
  const reason = reasonField(false);
  const rollBack = () =>
    change(dialog, `${modelPath(name)}/rollback`, reason.given(), history.etag, {
      done: `Version ${undone.from} is champion again`,
      again: (told) => confirm(dialog, name, history, told),
    });
  dialog.show(
    [
      ...notes,
      el("p", {}, `Version ${undone.from} comes back in the place of version ${history.champion}. `,
        "A rollback passes whatever the gate says; of the two it says:"),
      ...compared,
      reason.label, reason.input,
    ],
    [`Back to version ${undone.from}`, rollBack, "primary"],
  );
}

/** What the gate would say of `b` in the place of `a`, or why it cannot say anything. */
async function comparison(name, a, b) {
  try {
    const { data } = await ask(`${modelPath(name)}/compare?a=${a}&b=${b}`);
    return [verdictBox(data.verdict, data.reasons), ...figures(data)];
  } catch (error) {
    if (error.status === 0 || error.status === 401) throw error;
    return [verdictBox(null, [error.message])];
  }
}

async function change(dialog, path, json, etag, { done, again }) {
  const buttons = [...dialog.actions.children];
  dialog.problem.replaceChildren();
  for (const one of buttons) one.disabled = true;
  dialog.actions.setAttribute("aria-busy", "true");
  try {
    await ask(path, { method: "POST", json, headers: { "If-Match": etag } });
    dialog.done();
    say(done);
  } catch (error) {
    if (!dialog.open) return;
    if (error.status === STALE) return void again(error);
    dialog.problem.replaceChildren(problemBox(error));
  } finally {
    for (const one of buttons) one.disabled = false;
    dialog.actions.setAttribute("aria-busy", "false");
  }
}

function fail(dialog, error, again) {
  dialog.show([problemBox(error)], ["Ask again", again, "primary"]);
}

async function etagOf(name) {
  return (await ask(`${modelPath(name)}/history?limit=1`)).etag;
}

/** The gate's answer; a no comes as 409 with the same document in it. */
async function dryRun(name, version, etag) {
  try {
    const asked = { method: "POST", json: { version, dry_run: true }, headers: { "If-Match": etag } };
    return (await ask(`${modelPath(name)}/promote`, asked)).data;
  } catch (error) {
    if (error.status !== 409 || error.kind !== "verdict") throw error;
    return error.errors[0];
  }
}

function reasonField(required) {
  const input = el("input", { id: "reason", maxlength: 1000, autocomplete: "off", required });
  const text = required ? "The gate does not let it pass; give a reason to promote it all the same"
    : "Reason, for the history (may be empty)";
  const given = () => (input.value.trim() ? { reason: input.value.trim() } : {});
  return { input, given, label: el("label", { for: "reason" }, text) };
}

/* What the gate says of two versions, in words, figures and a line. */

const MEANING = {
  PROMOTE: "It is not worse.",
  HOLD: "This test set cannot tell.",
  REJECT: "It is worse.",
};

/** The verdict with its reasons; `verdict` is null where there was nothing to compare with. */
function verdictBox(verdict, reasons) {
  return el("div", { class: `verdict ${verdict ?? ""}` },
    el("strong", {}, verdict ?? "No comparison"),
    verdict && el("span", {}, ` ${MEANING[verdict]}`),
    reasons.map((reason) => el("p", { class: "small" }, reason)));
}

/** The figures of a comparison, and its interval as a line. */
function figures(comparison) {
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
const coloured = (value) =>
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

/* Two versions side by side, on the test set that both answered. */

/** Open the panel in `place` and compare version b with version a. */
export function openComparison(place, name, a, b) {
  const fields = [versionField("a", "From version", a), versionField("b", "to version", b)];
  const result = el("div", { class: "comparison", "aria-live": "polite" });
  const form = el("form", { class: "versus", onsubmit: run },
    fields.map(({ label, input }) => el("span", {}, label, input)),
    el("button", { class: "primary" }, "Compare"),
    button("Close", () => (place.hidden = true), { class: "quiet" }));
  const title = el("h2", { tabindex: "-1" }, "Compare");
  place.replaceChildren(el("div", { class: "card" }, title, form, result));
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
  title.focus({ preventScroll: true });
  void run();

  async function run(event) {
    event?.preventDefault();
    const [first, second] = fields.map(({ input }) => input.value);
    result.setAttribute("aria-busy", "true");
    try {
      const { data } = await ask(`${modelPath(name)}/compare?a=${first}&b=${second}`);
      const { verdict, reasons } = data;
      result.replaceChildren(verdictBox(verdict, reasons), ...figures(data), classes(data));
      say(`${verdict}: ${reasons.join(", ")}`);
    } catch (error) {
      result.replaceChildren(problemBox(error));
    } finally {
      result.setAttribute("aria-busy", "false");
    }
  }
}

function versionField(id, text, value) {
  const input = el("input", {
    id: `compare-${id}`, type: "number", inputmode: "numeric", min: 1, step: 1, required: true, value,
  });
  return { input, label: el("label", { for: input.id }, text) };
}

function classes({ per_class: rows }) {
  const heads = ["Class", "Images", "Before", "Now", "Points"];
  return el("details", { open: rows.length <= 20 },
    el("summary", {}, "By class"),
    el("div", { class: "table" }, el("table", { class: "plain" },
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((one) => el("tr", {},
        el("th", { scope: "row" }, one.class_name), el("td", {}, `${one.n}`),
        el("td", {}, percent(one.acc_a)), el("td", {}, percent(one.acc_b)),
        el("td", {}, one.diff === null ? "" : coloured(one.diff))))))));
}
