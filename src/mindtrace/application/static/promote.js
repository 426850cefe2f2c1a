/*
 * Promote and roll back: the gate is asked first, the user decides, the server changes.
 *
 * Both send the ETag of the history that the decision was made from, so that nobody
 * replaces a champion that he has not seen; where somebody was quicker, the gate is asked
 * again and the user with it.
 */

import { ask, modelPath } from "./api.js";
import { Decision } from "./dialog.js";
import { el, say } from "./dom.js";
import { problemBox } from "./problem.js";
import { figures, verdictBox } from "./verdict.js";
import { count } from "./words.js";

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
