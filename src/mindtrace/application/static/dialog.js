/* A dialog that wants a decision: its body changes, its buttons decide, Escape says no. */

import { button, el } from "./dom.js";

let opened = 0;

export class Decision {
  constructor(title) {
    const id = `dialog-title-${++opened}`;
    this.body = el("div", { class: "body", "aria-live": "polite" });
    this.problem = el("div", {});
    this.actions = el("div", { class: "actions" });
    this.box = el("dialog", { "aria-labelledby": id },
      el("h2", { id }, title), this.body, this.problem, this.actions);
    this.closed = new Promise((done) => this.box.addEventListener("close", () => {
      this.box.remove();
      done(this.box.returnValue === "done");
    }));
    // Whoever goes back in the browser has turned to something else.
    addEventListener("hashchange", () => this.box.close(), { once: true });
    document.body.append(this.box);
    this.box.showModal();
  }

  /** Whether it is still there to be filled. */
  get open() {
    return this.box.open;
  }

  /** Say what is going on; only Cancel can be pressed. */
  wait(text) {
    this.problem.replaceChildren();
    this.show([el("p", { class: "soft waiting" }, text)]);
  }

  /** Show a body, and buttons `[text, onclick, class]` beside Cancel. */
  show(body, ...buttons) {
    this.body.replaceChildren(...body);
    this.actions.replaceChildren(
      button("Cancel", () => this.box.close()),
      ...buttons.map(([text, onclick, kind]) => button(text, onclick, { class: kind })),
    );
    this.actions.firstChild.focus();
  }

  /** Close it as decided. */
  done() {
    this.box.close("done");
  }
}
