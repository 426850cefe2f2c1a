/* Who was champion and who said so; its ETag is what a change of the champion must name. */

import { ask, modelPath } from "./api.js";
import { button, el } from "./dom.js";
import { tell } from "./problem.js";
import { when } from "./words.js";

const ACTIONS = { promote: "promoted", rollback: "rolled back", refuse: "refused" };

export class History {
  /** `place` gives the element to show the list in. */
  constructor(place) {
    this.place = place;
    this.items = [];
    this.etag = null;
  }

  /** The champion of the log, or null. */
  get champion() {
    return this.items.find((item) => item.action !== "refuse")?.to ?? null;
  }

  /**
   * The promotion that a rollback would undo, as far as the loaded lines tell: the latest
   * that no later rollback has undone. Null if it had no champion before it.
   */
  undo() {
    let undone = 0;
    for (const item of this.items) {
      if (item.action === "rollback") undone += 1;
      else if (item.action === "promote" && undone-- === 0) return item.from === null ? null : item;
    }
    return null;
  }

  /** Load the newest lines and show them. */
  async load(name) {
    const { data, etag } = await ask(`${modelPath(name)}/history?limit=100`);
    Object.assign(this, { name, etag, items: data.items, cursor: data.next_cursor });
    this.#show();
  }

  async #loadOlder() {
    const query = `limit=100&cursor=${this.cursor}`;
    const { data } = await ask(`${modelPath(this.name)}/history?${query}`);
    this.items.push(...data.items);
    this.cursor = data.next_cursor;
    this.#show();
  }

  #show() {
    const older = this.cursor && button("Older lines", async () => {
      try {
        await this.#loadOlder();
      } catch (error) {
        tell(this.place(), error);
      }
    }, { class: "quiet" });
    this.place().replaceChildren(
      el("h2", {}, "History of champions"),
      this.items.length === 0
        ? el("p", { class: "soft" }, "Nobody was champion yet.")
        : el("ol", { class: "history card", reversed: true }, this.items.map(line)),
      ...(older ? [older] : []),
    );
  }
}

function line(item) {
  return el("li", { value: item.revision, "data-action": item.action },
    el("span", { class: "soft" }, `${item.revision}`),
    el("div", {},
      el("strong", {}, `Version ${item.to} ${ACTIONS[item.action]}`),
      item.from !== null && item.action !== "refuse" && ` in the place of ${item.from}`,
      item.verdict && el("span", { class: `verdict-word ${item.verdict}` }, item.verdict),
      el("div", { class: "soft small" }, when(item.at), `, by ${item.by}`),
      item.reason && el("q", {}, item.reason)));
}
