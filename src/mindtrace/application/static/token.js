/* The token of a guarded server: asked for in a dialog, kept for this tab only. */

import { el, button, byId } from "./dom.js";

const KEY = "mindtrace-token";
let asking = null;
let declined = false;

export const token = () => sessionStorage.getItem(KEY);

/**
 * Get a token in the place of `used`, which the server did not take.
 * True when there is another one to try; false if the user would not give one.
 */
export async function demandToken(used, quiet = false) {
  if (token() !== used) return true;
  byId("token").hidden = false;
  if (asking) return quiet ? false : asking;
  if (quiet || declined) return false;
  return open(used !== null);
}

/** Forget what the user said before and ask, because he wants to be asked. */
export async function changeToken() {
  declined = false;
  if (asking === null && (await open(false))) dispatchEvent(new Event("token"));
}

function open(wrong) {
  asking = dialog(wrong).finally(() => (asking = null));
  return asking;
}

function dialog(wrong) {
  const field = el("input", {
    id: "token-field", type: "password", autocomplete: "off", spellcheck: "false", required: true,
  });
  const fault = el("p", { class: "fault", role: "alert" }, wrong ? "The token is wrong." : "");
  const form = el(
    "form",
    { onsubmit: submit },
    el("h2", { id: "token-title" }, "This server wants its token"),
    el("p", { class: "soft" }, "It is in the file that the server was started with. ",
      "This tab keeps it until it is closed."),
    el("label", { for: "token-field" }, "Token"),
    field,
    fault,
    el("div", { class: "actions" }, button("Cancel", () => box.close()),
      el("button", { class: "primary" }, "Use it")),
  );
  const box = el("dialog", { "aria-labelledby": "token-title" }, form);
  document.body.append(box);
  box.showModal();
  field.focus();

  async function submit(event) {
    event.preventDefault();
    fault.textContent = "";
    const status = await tryToken(field.value.trim());
    if (status === 401) {
      fault.textContent = "The token is wrong.";
      field.select();
    } else if (status === 0) {
      fault.textContent = "The server does not answer.";
    } else {
      sessionStorage.setItem(KEY, field.value.trim());
      box.close("given");
    }
  }

  return new Promise((done) =>
    box.addEventListener("close", () => {
      box.remove();
      declined = box.returnValue !== "given";
      done(!declined);
    }),
  );
}

async function tryToken(text) {
  // What no header can hold is no token.
  if (!/^[\x21-\x7e]+$/.test(text)) return 401;
  try {
    const headers = { Authorization: `Bearer ${text}` };
    return (await fetch("/models?limit=1", { headers, cache: "no-store" })).status;
  } catch {
    return 0;
  }
}
