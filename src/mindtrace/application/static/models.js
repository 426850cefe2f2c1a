/* "Models": the versions of a model, one of them, and what can be done with them. */

import { ask, lookSoon, modelPath, request, rowsOf, servedNow } from "./api.js";
import {
  button, byId, count, decimal, duration, el, facts, percent, table, tableRow, tell, when,
} from "./dom.js";
import { championOf, openComparison, promoteDialog, rollbackDialog, undoneBy } from "./promote.js";

const PAGE = 20;
const LINES = 100; // of the history
const HEADS = ["Version", "Test accuracy", "Validation", "Test loss", "Trained", ""];
const ACTIONS = { promote: "promoted", rollback: "rolled back", refuse: "refused" };
let name = null;
let number = null; // of the version that is shown alone
let wanted = { versions: PAGE, history: LINES }; // what the reader has asked to see
let newest = 0; // of the questions that were asked: a later answer never yields to an earlier
let entries = []; // of the history of champions, newest first

/** Make the view alive; the function that is returned loads it anew when it is opened. */
export function startModels() {
  byId("model").addEventListener("change", (event) => {
    name = event.target.value;
    wanted = { versions: PAGE, history: LINES };
    byId("compare").hidden = true;
    void refresh();
  });
  addEventListener("served", () => byId("models").hidden || void load()); // somebody has promoted
  return (model, version) => {
    name = model ?? name;
    number = version ? Number(version) : null;
    newest += 1; // what was asked for another view comes too late
    byId("compare").hidden = true;
    for (const part of ["versions", "history"]) byId(part).replaceChildren();
    void load();
  };
}

async function load() {
  try {
    const { data } = await ask("/models?limit=100");
    const names = data.items.map((item) => item.model_name);
    if (number === null && !names.includes(name)) {
      name = names.find((each) => each === servedNow()?.model_name) ?? names[0] ?? null;
    }
    byId("model").replaceChildren(
      ...names.map((each) => el("option", { value: each, selected: each === name }, each)),
    );
    byId("model-choice").hidden = names.length === 0 || number !== null;
    byId("models-title").textContent = number === null ? "Models" : `${name}/${number}`;
    if (name === null) return showNone();
    await refresh();
  } catch (error) {
    tell(byId("models-problem"), error);
  }
}

/** Show anew what is shown: the versions, or one. */
async function refresh() {
  const turn = ++newest;
  const list = (what) => rowsOf(`${modelPath(name)}/${what}`, wanted[what]);
  const what = number === null ? list("versions") : about(number);
  try {
    const [found, log] = await Promise.all([what, list("history")]);
    // What a dialog was opened from stays until it is closed: the focus returns there.
    if (turn !== newest || document.querySelector("dialog[open]")) return;
    byId("models-problem").replaceChildren();
    entries = log.items;
    showHistory(log.more);
    const focused = document.activeElement?.closest("#versions [data-version] button");
    byId("versions").replaceChildren(...(number === null ? [tableOf(found)] : onePage(found)));
    if (focused) refocus(focused);
  } catch (error) {
    if (turn === newest) tell(byId("models-problem"), error);
  }
}

const moreButton = (text, what, count) => button(text, () => {
  wanted[what] += count;
  void refresh();
}, { class: "quiet" });

function tableOf({ items, more }) {
  const list = table(HEADS, [], "list card");
  list.querySelector("tbody").append(...items.map(row));
  if (more) list.append(moreButton("Older versions", "versions", PAGE));
  return list;
}

/** All was made anew below the user's fingers: the keyboard goes on where it was. */
function refocus(button) {
  const { version } = button.closest("[data-version]").dataset;
  const buttons = [...byId("versions").querySelectorAll(`[data-version="${version}"] button`)];
  const same = buttons.find((one) => one.textContent === button.textContent);
  (same ?? buttons[0] ?? byId("models-title")).focus({ preventScroll: true });
}

function row(item) {
  const { version, metrics } = item;
  return tableRow(HEADS, [
    [el("a", { href: `#models/${name}/${version}` }, `${version}`), tags(item)],
    percent(metrics.test_acc), percent(metrics.val_acc), decimal(metrics.test_loss),
    when(item.created_at), el("div", { class: "todo" }, actions(version)),
  ], { "data-version": version });
}

const leads = (version) => version === championOf(entries);

const tags = ({ version, aliases }) => [
  leads(version) && el("span", { class: "tag" }, "champion"),
  aliases.filter((alias) => alias !== "champion")
    .map((alias) => el("span", { class: "tag soft" }, alias)),
];

function actions(version) {
  const rollBack = () => void change(rollbackDialog(name));
  if (leads(version)) return undoneBy(entries) && button("Roll back…", rollBack);
  const champion = championOf(entries) ?? version;
  return [
    button("Compare", () => openComparison(byId("compare"), name, champion, version), {
      "aria-label": `Compare version ${version} with the champion`,
    }),
    button("Promote…", () => void change(promoteDialog(name, version)), {
      "aria-label": `Promote version ${version}…`,
    }),
  ];
}

/** Whatever came of a dialog: what is shown may be old now. */
async function change(dialog) {
  if (await dialog) lookSoon();
  await refresh();
}

/** Who was champion and who said so. */
function showHistory(more) {
  const shown = entries.filter(({ from, to }) => number === null || [from, to].includes(number));
  byId("history").replaceChildren(
    el("h2", {}, "History of champions"),
    shown.length === 0
      ? el("p", { class: "soft" }, number ? "It was not champion." : "Nobody was champion yet.")
      : el("ol", { class: "history card", reversed: true }, shown.map(entry)),
    more ? moreButton("Older lines", "history", LINES) : "",
  );
}

function entry(item) {
  return el("li", { value: item.revision, "data-action": item.action },
    el("span", { class: "soft" }, `${item.revision}`),
    el("div", {},
      el("strong", {}, `Version ${item.to} ${ACTIONS[item.action]}`),
      item.from !== null && item.action !== "refuse" && ` in the place of ${item.from}`,
      item.forced && el("span", { class: "tag forced" }, "forced"),
      item.gone && ", a version that is gone",
      item.verdict && el("span", { class: `verdict-word ${item.verdict}` }, item.verdict),
      el("div", { class: "soft small" }, when(item.at), `, by ${item.by}`),
      item.reason && el("q", {}, item.reason)));
}

function showNone() {
  byId("models-problem").replaceChildren();
  byId("versions").replaceChildren(el("p", { class: "card" },
    "Nothing is registered yet. Train a first version: ", el("code", {}, "mindtrace train"),
    ", or submit a job under ", el("a", { href: "#jobs" }, "Jobs"), "."));
  byId("history").replaceChildren();
}

/* One version: its figures, classes, pictures, parameters and digests. */

const PLOTS = {
  "curves.png": "Learning curves", "confusion.png": "Confusion matrix",
  "calibration.png": "Calibration", "mistakes.png": "The most confident mistakes",
};
const SCORES = ["Class", "Test images", "Precision", "Recall", "F1"];

/** What the server knows of a version: `{item, report, plots}`; its report may be elsewhere. */
async function about(version) {
  const path = `${modelPath(name)}/versions/${version}`;
  const { data: item } = await ask(path);
  const file = (one) => request(`${path}/report/${one}`);
  const names = Object.keys(PLOTS).filter((one) => item.report_files.includes(one));
  const [report, ...plots] = await Promise.all([
    item.report_files.includes("report.json") && file("report.json").then((got) => got.json()),
    ...names.map(async (one) => [PLOTS[one], await (await file(one)).blob()]),
  ]);
  return { item, report, plots };
}

function onePage({ item, report, plots }) {
  const { version, metrics, params, environment, files, git } = item;
  const digests = Object.entries(item).filter(([key]) => key.endsWith("_digest"));
  const { mlflow_ui: ui } = item; // its run's page, or a command
  const made = [["run_id", item.run_id],
    ["its run in MLflow", ui?.startsWith("http") ? el("a", { href: ui }, ui) : ui],
    ["its report as one page", report ? `mindtrace registry report ${name}/${version}` : null],
    ["job_id", item.job_id], ["commit", git.commit], ["uncommitted changes", git.dirty],
    ...Object.entries(environment)];
  const more = (title, rows) => el("details", {}, el("summary", {}, title),
    table(["Name", "Value"], rows.filter(([, value]) => value != null)
      .map(([key, value]) => [key, value instanceof Node ? value : `${value}`]), "plain wrap"));
  return [
    el("div", { class: "titled", "data-version": version },
      el("p", {}, el("a", { href: "#models" }, `All versions of ${name}`), tags(item)),
      el("div", { class: "todo" }, actions(version))),
    el("div", { class: "card" },
      facts([
        ...Object.entries(metrics).map(([key, value]) => [key.replaceAll("_", " "),
          key.endsWith("loss") ? decimal(value) : percent(value, 2)]),
        ["trained", when(item.created_at)], ["took", item.duration_s && duration(item.duration_s)],
        ["best epoch", item.best_epoch], ["seed", item.seed], ["parent", item.parent],
        ["network", params["model.name"]],
      ].filter(([, value]) => value != null)),
      report && report.warnings.length > 0 && el("details", { class: "verdict HOLD" },
        el("summary", {}, count(report.warnings.length, "warning")),
        report.warnings.map((text) => el("p", { class: "small" }, text)))),
    report ? el("div", { class: "card" }, el("h2", {}, "Classes, the weakest first"),
      table(SCORES, report.classes.sort((a, b) => a.f1 - b.f1).map((one) => [
        one.class_name, `${one.images}`, percent(one.precision), percent(one.recall),
        percent(one.f1),
      ]), "plain tall")) : el("p", { class: "soft" }, "This server has no report of its training."),
    el("div", { class: "plots" }, plots.map(([title, blob]) => el("figure",
      { class: title === PLOTS["mistakes.png"] ? "card whole" : "card" },
      el("figcaption", {}, title), el("img", { src: URL.createObjectURL(blob), alt: title,
        onload: ({ target }) => URL.revokeObjectURL(target.src) })))),
    el("div", { class: "card" },
      more("Parameters", Object.entries(params)), more("Digests", digests),
      more("Made with", made), more("Files of the bundle, bytes", Object.entries(files))),
  ];
}
