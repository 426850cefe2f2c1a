/* "Models": the versions of a model, and what can be done with them. */

import { ask, lookSoon, modelPath, servedNow } from "./api.js";
import { button, byId, decimal, el, moreButton, percent, tell, when } from "./dom.js";
import { championOf, openComparison, promoteDialog, rollbackDialog, undoneBy } from "./promote.js";

const PAGE = 20;
const MOST = 100; // versions that come at once
const HEADS = ["Version", "Test accuracy", "Validation", "Test loss", "Trained"];
const ACTIONS = { promote: "promoted", rollback: "rolled back", refuse: "refused" };
let name = null;
let wanted = PAGE; // versions that the reader has asked to see
let newest = 0; // of the questions that were asked: a later answer never yields to an earlier
let entries = []; // of the history of champions, newest first

/** Make the view alive; the function that is returned loads it anew when it is opened. */
export function startModels() {
  byId("model").addEventListener("change", (event) => {
    name = event.target.value;
    wanted = PAGE;
    byId("compare").hidden = true;
    void loadVersions();
  });
  // Somebody else has promoted. What a dialog was opened from stays until it is closed.
  addEventListener("served", () => {
    if (!byId("models").hidden && !document.querySelector("dialog[open]")) void load();
  });
  return () => void load();
}

async function load() {
  try {
    const { data } = await ask("/models?limit=100");
    const names = data.items.map((item) => item.model_name);
    if (!names.includes(name)) {
      name = names.find((each) => each === servedNow()?.model_name) ?? names[0] ?? null;
    }
    byId("model").replaceChildren(
      ...names.map((each) => el("option", { value: each, selected: each === name }, each)),
    );
    byId("model-choice").hidden = names.length === 0;
    if (name === null) return showNone();
    await loadVersions();
  } catch (error) {
    tell(byId("models-problem"), error);
  }
}

async function loadVersions() {
  const turn = ++newest;
  try {
    const [rows, lines] = await Promise.all([
      page("versions", Math.min(wanted, MOST)), page("history", MOST),
    ]);
    if (turn !== newest) return;
    byId("models-problem").replaceChildren();
    entries = [];
    showHistory(lines);
    const table = emptyTable();
    const focused = document.activeElement?.closest("#versions tr button");
    byId("versions").replaceChildren(el("div", { class: "card table" }, table));
    append(table, rows);
    if (focused) refocus(table, focused);
  } catch (error) {
    if (turn === newest) tell(byId("models-problem"), error);
  }
}

/** A page of versions or of the history. */
async function page(what, limit, cursor = null) {
  const query = new URLSearchParams({ limit, ...(cursor !== null && { cursor }) });
  return (await ask(`${modelPath(name)}/${what}?${query}`)).data;
}

function emptyTable() {
  return el("table", {},
    el("caption", { class: "unseen" }, `Versions of ${name}, newest first`),
    el("thead", {}, el("tr", {},
      HEADS.map((head) => el("th", { scope: "col" }, head)),
      el("td", {}, el("span", { class: "unseen" }, "What can be done")))),
    el("tbody", {}));
}

function append(table, { items, next_cursor: cursor }) {
  table.tBodies[0].append(...items.map(row));
  if (cursor === null) return;
  const more = moreButton("Older versions", byId("models-problem"), async () => {
    wanted = table.tBodies[0].rows.length + PAGE;
    const rows = await page("versions", PAGE, cursor);
    // Made anew meanwhile, perhaps before anybody knew that more was wanted.
    if (!table.isConnected) return void loadVersions();
    more.remove();
    append(table, rows);
  });
  table.parentNode.append(more);
}

/** The table was made anew below the user's fingers: the keyboard goes on where it was. */
function refocus(table, button) {
  const { version } = button.closest("tr").dataset;
  const buttons = [...table.querySelectorAll(`[data-version="${version}"] button`)];
  const same = buttons.find((one) => one.textContent === button.textContent);
  (same ?? buttons[0] ?? byId("models-title")).focus({ preventScroll: true });
}

function row(item) {
  const { version, metrics } = item;
  const leads = version === championOf(entries);
  const others = item.aliases.filter((alias) => alias !== "champion");
  return el("tr", { class: leads ? "champion" : null, "data-version": version },
    el("th", { scope: "row" }, `${version}`, leads && el("span", { class: "tag" }, "champion"),
      others.map((alias) => el("span", { class: "tag soft" }, alias))),
    cell(HEADS[1], percent(metrics.test_acc)),
    cell(HEADS[2], percent(metrics.val_acc)),
    cell(HEADS[3], decimal(metrics.test_loss)),
    cell(HEADS[4], when(item.created_at)),
    el("td", {}, el("div", { class: "todo" }, actions(version, leads))));
}

const cell = (head, ...content) => el("td", { "data-head": head }, ...content);

function actions(version, leads) {
  const rollBack = () => void change(rollbackDialog(name));
  if (leads) return undoneBy(entries) && button("Roll back…", rollBack);
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
  await loadVersions();
}

/** Who was champion and who said so; `items` come behind those that are shown. */
function showHistory({ items, next_cursor: cursor }) {
  entries.push(...items);
  const older = async () => showHistory(await page("history", MOST, cursor));
  byId("history").replaceChildren(
    el("h2", {}, "History of champions"),
    entries.length === 0
      ? el("p", { class: "soft" }, "Nobody was champion yet.")
      : el("ol", { class: "history card", reversed: true }, entries.map(entry)),
    cursor ? moreButton("Older lines", byId("history"), older) : "",
  );
}

function entry(item) {
  return el("li", { value: item.revision, "data-action": item.action },
    el("span", { class: "soft" }, `${item.revision}`),
    el("div", {},
      el("strong", {}, `Version ${item.to} ${ACTIONS[item.action]}`),
      item.from !== null && item.action !== "refuse" && ` in the place of ${item.from}`,
      item.forced && ", forced",
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
