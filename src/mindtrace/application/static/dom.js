/* Making elements (text is always text: nothing in this page parses HTML), words, dialogs, problems. */

/** An HTML element; `on...` attributes are listeners, false ones are left out. */
export const el = (...parts) => make("http://www.w3.org/1999/xhtml", ...parts);

/** The same for SVG. */
export const svg = (...parts) => make("http://www.w3.org/2000/svg", ...parts);

function make(kind, tag, attributes = {}, ...children) {
  const node = document.createElementNS(kind, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A button that says what it does. */
export function button(text, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, text);
}

/** Tell those who cannot see what has changed; the same words twice are told twice. */
export function say(text) {
  const region = byId("said");
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}

/** Whether the user looks at the page now. */
export const visible = () => document.visibilityState === "visible";

export const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

/* Numbers and times as people read them. */

const NONE = "–";
const UNITS = { second: 1, minute: 60, hour: 3600, day: 86400, month: 86400 * 30 };
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** 0.9812 is 98.1 %. */
export const percent = (value, digits = 1) =>
  value == null ? NONE : `${(100 * value).toFixed(digits)}\u202f%`;

/** A difference of two shares, in points: 0.0123 is +1.2. */
export const points = (value) => {
  const text = Math.abs(100 * value).toFixed(1);
  return text === "0.0" ? text : `${value < 0 ? "\u2212" : "+"}${text}`;
};

export const decimal = (value) => (value == null ? NONE : value.toFixed(3));

export const count = (value, one) =>
  `${value.toLocaleString("en")} ${one}${value === 1 ? "" : "s"}`;

/** A time of the server, told from now on; the whole of it on hover. */
export function when(iso) {
  if (!iso) return NONE;
  const then = new Date(iso);
  return el("time", { datetime: iso, title: then.toLocaleString() }, ago(then));
}

function ago(then) {
  const seconds = (then - Date.now()) / 1000;
  if (Math.abs(seconds) < 5) return "just now";
  const unit = Object.keys(UNITS).findLast((name) => Math.abs(seconds) >= UNITS[name]);
  if (unit === "month") return then.toLocaleDateString("en", { dateStyle: "medium" });
  return relative.format(Math.round(seconds / UNITS[unit]), unit);
}

/** Words with their values, as a list of definitions. */
export const facts = (rows) =>
  el("dl", {}, rows.map(([word, value]) => el("div", {}, el("dt", {}, word), el("dd", {}, value))));

const natural = new Intl.Collator("en", { numeric: true });
const figure = (text) => Number(text.replace("\u2212", "-").replace(/[,%\s]/g, ""));

/** A row of a table; its first cell is its name, the others know their heads. */
export const tableRow = (heads, [name, ...cells], attributes) => el("tr", attributes,
  el("th", { scope: "row" }, name),
  cells.map((cell, i) => el("td", { "data-head": heads[i + 1] }, cell)));

/** A table that the heads of its columns sort. */
export function table(heads, rows, kind = "plain") {
  const head = el("tr", {}, heads.map((text, column) => el("th", { scope: "col" },
    text && button(text, () => sort(column), { class: "quiet" }))));
  const body = el("tbody", {}, rows.map((cells) => tableRow(heads, cells)));
  const compare = (a, b) => figure(a) - figure(b) || natural.compare(a, b);

  function sort(column) {
    const up = head.cells[column].ariaSort !== "ascending";
    for (const one of head.cells) one.ariaSort = null;
    head.cells[column].ariaSort = up ? "ascending" : "descending";
    const key = ({ cells: { [column]: cell } }) =>
      cell.querySelector("time")?.dateTime ?? cell.textContent;
    const sorted = [...body.rows].sort((a, b) => compare(key(a), key(b)));
    body.append(...(up ? sorted : sorted.reverse()));
  }

  return el("div", { class: `table ${kind}` }, el("table", {}, el("thead", {}, head), body));
}

/** How long something took: 75 is 1 min 15 s. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/* A dialog that wants a decision: its body changes, its buttons decide, Escape says no. */

let opened = 0;

export class Decision {
  constructor(title, { stays = false } = {}) {
    const id = `dialog-title-${++opened}`;
    this.body = el("div", { "aria-live": "polite" });
    this.problem = el("div");
    this.actions = el("div", { class: "actions" });
    this.box = el("dialog", { "aria-labelledby": id },
      el("h2", { id }, title), this.body, this.problem, this.actions);
    this.closed = new Promise((done) => this.box.addEventListener("close", () => {
      this.box.remove();
      done(this.box.returnValue === "done");
    }));
    // Whoever goes back in the browser has turned to something else.
    if (!stays) addEventListener("hashchange", () => this.box.close(), { once: true });
    document.body.append(this.box);
    this.box.showModal();
  }

  /** Show a body, and buttons `[text, onclick, class]` beside Cancel. */
  show(body, ...buttons) {
    this.problem.replaceChildren();
    this.body.replaceChildren(...body);
    this.actions.replaceChildren(
      button("Cancel", () => this.box.close()),
      ...buttons.map(([text, onclick, kind]) => button(text, onclick, { class: kind })),
    );
    this.actions.firstChild.focus();
  }

  /** Do what was decided and close; or show why not, unless `handle` takes the error. */
  async carryOut(action, handle = () => false) {
    const buttons = [...this.actions.children];
    this.problem.replaceChildren();
    for (const one of buttons) one.disabled = true;
    try {
      await action();
      this.box.close("done");
    } catch (error) {
      if (this.box.open && !handle(error)) this.problem.replaceChildren(problemBox(error));
    } finally {
      for (const one of buttons) one.disabled = false;
    }
  }
}

/* A refusal as a box that says what happened and what to do; never silence. */

const HEADLINES = {
  0: "The server does not answer",
  401: "The server wants its token",
  404: "Not there",
  409: "Not possible as things are",
  412: "Somebody else was quicker",
  413: "Too large",
  415: "Not a kind of file that is read here",
  422: "That does not fit",
  429: "Enough for now",
  503: "Not now",
  504: "It took too long",
};
const BY_KIND = {
  "no-version": "No version to serve yet",
  image: "Not an image that can be read",
  verdict: "The gate says no",
};
const HINTS = {
  0: "Is mindtrace serve still running? This page goes on as soon as it answers.",
  401: "Give it with the button Token at the top.",
};

/** The box for an error; anything that is no Refusal is a fault of the page, and said so. */
export function problemBox(error) {
  const headline = error.headline ?? BY_KIND[error.kind] ?? HEADLINES[error.status] ??
    (error.status === undefined ? "This page failed" : "The server could not do it");
  const hint = error.hint ?? HINTS[error.status];
  const faults = error.errors?.map((fault) => fault.message).filter(Boolean) ?? [];
  const lines = faults.filter((line) => line !== error.message);
  const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  return el("div", { class: "problem", role: "alert" },
    el("strong", {}, headline),
    error.status !== 0 && el("p", {}, `${text}${/[.!?]$/.test(text) ? "" : "."}`),
    lines.length > 0 && el("ul", {}, lines.map((line) => el("li", {}, line))),
    hint && el("p", { class: "soft" }, hint),
    error.status >= 500 && error.requestId &&
      el("p", { class: "soft" }, "request_id ", el("code", {}, error.requestId)));
}

/** Show an error in `place`; what was aborted on purpose is none. */
export function tell(place, error) {
  if (error.name === "AbortError") return;
  if (error.status === undefined) console.error(error);
  place.replaceChildren(problemBox(error));
}
