/* Asking the server: JSON and streams of events, the token of a guarded server, what it serves. */

import { byId, Decision, el, pause, visible } from "./dom.js";

/** The server's problem document (RFC 9457), or that there was no answer: status 0. */
class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.kind = (problem.type ?? "").split(":").pop();
    this.hint = problem.hint ?? null;
    this.errors = problem.errors ?? [];
    this.requestId = problem.request_id ?? null;
  }
}

/** Wait for an answer; what the network does to it is a Refusal, too. */
async function unbroken(answer, detail) {
  try {
    return await answer;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { detail });
  }
}

const MOST = 100; // rows that come at once

/**
 * Ask once, and again after the user has given the token that was missing.
 * Returns `{data, etag}`; raises a Refusal, or AbortError if `signal` says so.
 */
export async function ask(path, { json, headers = {}, ...options } = {}) {
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    headers = { "Content-Type": "application/json", ...headers };
  }
  const response = await request(path, { ...options, headers });
  const data = await unbroken(response.json(), "The server's answer broke off.");
  return { data, etag: response.headers.get("ETag") };
}

/** The first rows of a list, as many as are wanted, and whether there are more. */
export async function rowsOf(path, wanted, options) {
  const items = [];
  for (let cursor; items.length < wanted;) {
    const query = new URLSearchParams({ limit: Math.min(wanted - items.length, MOST) });
    if (cursor) query.set("cursor", cursor);
    const { data } = await ask(`${path}?${query}`, options);
    items.push(...data.items);
    cursor = data.next_cursor;
    if (cursor === null) return { items, more: false };
  }
  return { items, more: true };
}

/** Where the routes of a model begin. */
export const modelPath = (name) => `/models/${encodeURIComponent(name)}`;

/** The response itself, for what is no JSON: a log, a stream of events. */
export async function request(path, { quiet = false, ...options } = {}) {
  for (;;) {
    const used = token();
    const response = await send(path, options, used);
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({ title: response.statusText }));
    // A `quiet` question comes from a clock, not from the user, and opens no dialog.
    if (response.status !== 401 || !(await demandToken(used, quiet))) {
      throw new Refusal(response.status, problem);
    }
  }
}

function send(path, options, used) {
  const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
  const response = fetch(path, { ...options, headers, cache: "no-store" });
  return unbroken(response, "The server does not answer.");
}

/* The token of a guarded server: asked for in a dialog, kept for this tab only. */

const KEY = "mindtrace-token";
let asking = null;
let declined = false;

export const token = () => sessionStorage.getItem(KEY);

/**
 * Get a token in the place of `used`, which the server did not take.
 * True when there is another one to try; false if the user would not give one.
 */
async function demandToken(used, quiet) {
  if (token() !== used) return true;
  byId("token").hidden = false;
  if (asking) return quiet ? false : asking;
  return quiet || declined ? false : askForToken(used !== null);
}

/** Ask although the user has declined before, because he wants to be asked. */
export async function changeToken() {
  if (asking === null && (await askForToken(false))) dispatchEvent(new Event("token"));
}

function askForToken(wrong) {
  const field = el("input", {
    id: "token-field", type: "password", autocomplete: "off", spellcheck: "false", required: true,
  });
  const fault = el("p", { class: "fault", role: "alert" }, wrong ? "The token is wrong." : "");
  const form = el("form", { onsubmit: submit },
    el("p", { class: "soft" }, "It is in the file that the server was started with. ",
      "This tab keeps it until it is closed."),
    el("label", { for: "token-field" }, "Token"), field, fault);
  const dialog = new Decision("This server wants its token", { stays: true });
  dialog.show([form], ["Use it", () => form.requestSubmit(), "primary"]);
  field.focus();

  async function submit(event) {
    event.preventDefault();
    fault.textContent = "";
    const text = field.value.trim();
    try {
      // What no header can hold is no token.
      const fits = /^[\x21-\x7e]+$/.test(text);
      if (!fits || (await send("/models?limit=1", {}, text)).status === 401) {
        fault.textContent = "The token is wrong.";
        return field.select();
      }
      sessionStorage.setItem(KEY, text);
      dialog.box.close("done");
    } catch (error) {
      fault.textContent = error.message;
    }
  }

  asking = dialog.closed.then((given) => {
    asking = null;
    declined = !given;
    if (given) dispatchEvent(new Event("served")); // what could not be known before can be now
    return given;
  });
  return asking;
}

/* Server-sent events read by fetch: an EventSource could not send the token. */

const AGAIN = 2; // seconds after which a stream that broke is taken up where it was

/** Events `{id, event, data}` of a stream, over broken connections, until `end` or `signal`. */
export async function* events(path, signal) {
  let last = null;
  while (!signal.aborted) {
    try {
      for await (const one of once(path, last, signal)) {
        last = one.id;
        yield one;
        if (one.event === "end") return;
      }
    } catch (error) {
      // A server that is away may come back; one that refuses has said why.
      if (error.name === "AbortError" || error.status > 0) throw error;
    }
    await pause(AGAIN);
  }
}

async function* once(path, last, signal) {
  const headers = { Accept: "text/event-stream", ...(last !== null && { "Last-Event-ID": last }) };
  const { body } = await request(path, { headers, signal });
  if (body === null) return; // there is nothing behind the last one
  let text = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => /^([a-z]+): ?(.*)$/.exec(line)?.slice(1));
      const { id, event, data } = Object.fromEntries(lines.filter(Boolean));
      // Without data it only keeps the connection.
      if (data !== undefined) yield { id, event, data: JSON.parse(data) };
    }
  }
}

/* What the server serves, looked at every few seconds: in the header, and as an event. */

const EVERY = 4; // seconds
let served = null;
let found = null; // what was said of it
let hurry = 0;
let wake = () => {};

/** The version that answers now: `{model_name, version}`, or null. */
export const servedNow = () => served;

/** Look often for a while: something is about to change. */
export function lookSoon() {
  hurry = 12;
  wake();
}

/** Look for ever; the event `served` tells what was found first, and what takes its place. */
export async function watch() {
  for (;;) {
    if (visible()) await look();
    const seconds = hurry-- > 0 ? 0.5 : EVERY;
    await Promise.race([pause(seconds), new Promise((done) => (wake = done))]);
  }
}

async function look() {
  let [state, text, now] = ["gone", "no answer", served];
  try {
    const response = await fetch("/healthz/ready", { cache: "no-store" });
    const told = await response.json();
    if (response.ok) {
      [state, text, now] = ["ready", `serving ${nameOf(told)}`, told];
    } else {
      const none = told.type?.endsWith(":no-version");
      [state, text, now] = ["waiting", none ? "no version yet" : "not ready", null];
    }
  } catch {
    // What it served before, it may serve again.
  }
  byId("status").dataset.state = state;
  byId("status-text").textContent = text;
  byId("gone").hidden = state !== "gone";
  served = now;
  if (state === "gone" || text === found) return;
  found = text;
  dispatchEvent(new Event("served"));
}

const nameOf = ({ model_name: name, version }) => (name ? `${name}/${version}` : "a bundle");
