/* Promote and roll back: the gate is asked first, the user decides, the server changes. */

import { ask, modelPath } from "./api.js";
import {
  button, count, Decision, el, facts, percent, points, problemBox, say, svg, table,
} from "./dom.js";

/**
 * Ask in a dialog; resolves to whether the champion has changed. `prepare` says what to show and
 * what is sent: with the ETag of the history that the decision is made from, so that nobody
 * replaces a champion that he has not seen. Where somebody was quicker, all begins again.
 */
function decide(title, waiting, prepare) {
  const dialog = new Decision(title);

  async function begin(told = null) {
    dialog.show([el("p", { class: "soft" }, waiting)]);
    try {
      const { body, text, kind = "primary", ...change } = await prepare();
      if (!dialog.box.open) return;
      const buttons = text ? [[text, () => send(change), kind]] : [];
      dialog.show([told ? problemBox(told) : "", ...body], ...buttons);
    } catch (error) {
      if (!dialog.box.open) return;
      dialog.show([problemBox(error)], ["Ask again", () => void begin(), "primary"]);
    }
  }

  function send({ path, etag, reason: [, reason], json, done }) {
    if (!reason.reportValidity()) return;
    const given = reason.value.trim() ? { reason: reason.value.trim() } : {};
    const options = { method: "POST", json: { ...json, ...given }, headers: { "If-Match": etag } };
    void dialog.carryOut(() => ask(path, options).then(() => say(done)), (error) => {
      if (error.status === 412) void begin(error);
      return error.status === 412;
    });
  }

  void begin();
  return dialog.closed;
}

/** Ask the gate about a version, then the user. */
export function promoteDialog(name, version) {
  return decide(`Make ${name}/${version} champion?`, "Asking the gate…", async () => {
    const { etag } = await ask(`${modelPath(name)}/history?limit=1`);
    const path = `${modelPath(name)}/promote`;
    const gate = await dryRun(path, version, etag);
    const passes = gate.verdict === null || gate.verdict === "PROMOTE";
    const reason = reasonField(!passes);
    return {
      body: [
        verdictBox(gate.verdict, gate.reasons ?? []),
        ...(gate.comparison ? figures(gate.comparison) : []),
        gate.times_used > 0 ? el("p", { class: "soft small" },
          `This test set has decided ${count(gate.times_used, "time")} before; `,
          "each time it tells a little less.") : "",
        ...reason,
      ],
      text: passes ? `Make ${version} champion` : "Promote all the same",
      kind: passes ? "primary" : "danger",
      done: `Version ${version} is champion`,
      json: { version, force: !passes },
      path, etag, reason,
    };
  });
}

/** Show what would come back, then ask. */
export function rollbackDialog(name) {
  return decide(`Roll ${name} back?`, "Looking at the history…", async () => {
    const { data, etag } = await ask(`${modelPath(name)}/history?limit=100`);
    const undone = undoneBy(data.items);
    if (!undone) return { body: [el("p", {}, "There is nothing to roll back.")] };
    const [champion, before] = [championOf(data.items), undone.from];
    const reason = reasonField(false);
    return {
      body: [
        el("p", {}, `Version ${before} comes back in the place of version ${champion}. `,
          "A rollback passes whatever the gate says; of the two it says:"),
        ...(await comparison(name, champion, before)),
        ...reason,
      ],
      text: `Back to version ${before}`,
      done: `Version ${before} is champion again`,
      path: `${modelPath(name)}/rollback`,
      etag, reason,
    };
  });
}

/** The champion of a log, newest line first, or null. */
export const championOf = (items) =>
  items.find((item) => item.action !== "refuse" && !item.gone)?.to ?? null;

/**
 * The promotion that a rollback would undo, as far as these lines tell: the latest that no
 * later rollback has undone. Null if it had no champion before it.
 */
export function undoneBy(items) {
  let undone = 0;
  for (const item of items) {
    if (item.action === "rollback") undone += 1;
    else if (item.action === "promote" && undone-- === 0) {
      return item.from === null || item.gone ? null : item;
    }
  }
  return null;
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

/** The gate's answer; a no comes as 409 with the same document in it. */
async function dryRun(path, version, etag) {
  try {
    const json = { version, dry_run: true };
    return (await ask(path, { method: "POST", json, headers: { "If-Match": etag } })).data;
  } catch (error) {
    if (error.status !== 409 || error.kind !== "verdict") throw error;
    return error.errors[0];
  }
}

function reasonField(required) {
  const text = required ? "The gate does not let it pass; give a reason to promote it all the same"
    : "Reason, for the history (may be empty)";
  const input = el("input", { id: "reason", maxlength: 1000, autocomplete: "off", required });
  return [el("label", { for: "reason" }, text), input];
}

/* What the gate says of two versions, in words, figures and a line. */

/** The verdict with its reasons; `verdict` is null where there was nothing to compare with. */
function verdictBox(verdict, reasons) {
  return el("div", { class: `verdict ${verdict ?? ""}` },
    el("strong", {}, verdict ?? "No comparison"),
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
  ];
  return [facts(rows), interval(comparison)];
}

/** A difference of accuracies, green or red. */
const coloured = (value) =>
  el("span", { class: value > 0 ? "up" : value < 0 ? "down" : "soft" }, points(value));

function interval(comparison) {
  const { ci: [low, high], margin = 0.01, n, minimum_detectable: least } = comparison;
  const { metric = "accuracy", score_a: before = 0, score_b: now = comparison.diff } = comparison;
  const diff = now - before;
  const reach = 1.15 * Math.max(Math.abs(low), Math.abs(high), margin, 1e-4);
  const at = (value) => 300 + (280 * value) / reach;
  const words =
    `${points(diff)} points of ${metric}, between ${points(low)} and ${points(high)} with 95 % confidence. ` +
    `${count(n, "test image")} can show a difference of ${points(least).slice(1)} or more.`;
  const mark = (value, kind) =>
    svg("line", { x1: at(value), x2: at(value), y1: 14, y2: 46, class: kind });
  return el("figure", { class: "interval" },
    svg("svg", { viewBox: "0 0 600 60", role: "img", "aria-label": words },
      svg("line", { x1: 20, x2: 580, y1: 30, y2: 30, class: "axis" }),
      mark(0, "zero"), mark(-margin, "margin"),
      svg("line", { x1: at(low), x2: at(high), y1: 30, y2: 30, class: "range" }),
      svg("circle", { cx: at(diff), cy: 30, r: 8, class: "point" })),
    el("figcaption", { class: "soft small" }, words, " Dashed: the gate's margin."));
}

/* Two versions side by side, on the test set that both answered. */

/** Open the panel in `place` and compare version b with version a. */
export function openComparison(place, name, a, b) {
  const inputs = [["a", a], ["b", b]].map(([id, value]) => el("input", {
    id: `compare-${id}`, type: "number", inputmode: "numeric", min: 1, step: 1, required: true, value,
  }));
  const labels = ["From version", "to version"];
  const result = el("div", { class: "comparison", "aria-live": "polite" });
  const form = el("form", { class: "versus", onsubmit: run },
    inputs.map((input, i) => el("span", {}, el("label", { for: input.id }, labels[i]), input)),
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
    const [first, second] = inputs.map((input) => input.value);
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

function classes({ per_class: rows }) {
  return el("details", { open: rows.length <= 20 },
    el("summary", {}, "By class"),
    table(["Class", "Images", "Before", "Now", "Points"], rows.map((one) => [
      one.class_name, `${one.n}`, percent(one.acc_a), percent(one.acc_b),
      one.diff === null ? "" : coloured(one.diff),
    ])));
}
