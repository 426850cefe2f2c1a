/* A refusal as a box that says what happened and what to do; never silence. */

import { el } from "./dom.js";

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
  const known = error.status !== undefined;
  const headline = error.headline ?? BY_KIND[error.kind] ?? HEADLINES[error.status] ??
    (known ? "The server could not do it" : "This page failed");
  const hint = error.hint ?? HINTS[error.status];
  const faults = error.errors?.map((fault) => fault.message).filter(Boolean) ?? [];
  const lines = faults.filter((line) => line !== error.message);
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("strong", {}, headline),
    error.status !== 0 && el("p", {}, sentence(error.message)),
    lines.length > 0 && el("ul", {}, lines.map((line) => el("li", {}, line))),
    hint && el("p", { class: "soft" }, hint),
    error.status >= 500 && error.requestId &&
      el("p", { class: "soft" }, "request_id ", el("code", {}, error.requestId)),
  );
}

/** Show an error in `place`; what was aborted on purpose is none. */
export function tell(place, error) {
  if (error.name === "AbortError") return;
  if (error.status === undefined) console.error(error);
  place.replaceChildren(problemBox(error));
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
