/* Asking the server: JSON and streams of events, the token of a guarded server, what it serves. */

import { button, byId, el, pause, visible } from "./dom.js";

/** The server's problem document (RFC 9457), or that there was no answer: status 0. */
class Refusal extends Error {
  constructor(status, problem = {}) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.kind = (problem.type ?? "").split(":").pop();
    this.hint = problem.hint ?? null;
    this.errors = problem.errors ?? [];
    this.requestId = problem.request_id ?? null;
  }
}

/**
 * Ask once, and again after the user has given the token that was missing.
 * Returns `{data, etag, status}`; raises a Refusal, or AbortError if `signal` says so.
 */
export async function ask(path, { method = "GET", json, headers = {}, signal, quiet } = {}) {
  const sent = json === undefined ? {} : { "Content-Type": "application/json" };
  const body = json === undefined ? undefined : JSON.stringify(json);
  const response = await request(path, {
    method, body, signal, quiet, headers: { ...sent, ...headers },
  });
  const data = await read(response);
  return { data, etag: response.headers.get("ETag"), status: response.status };
}

/** Where the routes of a model begin. */
export const modelPath = (name) => `/models/${encodeURIComponent(name)}`;

/** The response itself, for what is no JSON: a log, a stream of events. */
export async function request(path, { quiet = false, ...options } = {}) {
  for (;;) {
    const used = token();
    const response = await send(path, options, used);
    if (response.ok) return response;
    const refusal = await refused(response);
    // A `quiet` question comes from a clock, not from the user, and opens no dialog.
    if (response.status !== 401 || !(await demandToken(used, quiet))) throw refusal;
  }
}

async function send(path, options, used) {
  const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { detail: "The server does not answer." });
  }
}

async function refused(response) {
  try {
    return new Refusal(response.status, await response.json());
  } catch {
    return new Refusal(response.status, { title: response.statusText });
  }
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { detail: "The server's answer broke off." });
  }
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
async function demandToken(used, quiet = false) {
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

/* Server-sent events read by fetch: an EventSource could not send the token. */

const AGAIN = 2; // seconds after which a stream that broke is taken up where it was

/** Events `{id, event, data}` of a stream, over broken connections, until `end` or `signal`. */
export async function* events(path, signal) {
  let last = null;
  while (!signal.aborted) {
    try {
      for await (const one of once(path, last, signal)) {
        last = one.id ?? last;
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
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).replaceAll("\r\n", "\n").split("\n\n");
    text = blocks.pop();
    yield* blocks.map(parsed).filter(Boolean);
  }
}

/** One block of lines, or null for a comment that only keeps the connection. */
function parsed(block) {
  const fields = { id: null, event: "message", data: [] };
  for (const line of block.split("\n")) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
    if (name === "data") fields.data.push(value);
    else if (name) fields[name] = value;
  }
  if (fields.data.length === 0) return null;
  return { ...fields, data: JSON.parse(fields.data.join("\n")) };
}

/* What the server serves, looked at every few seconds: in the header, and as an event. */

const EVERY = 4; // seconds
let served = null;
let hurry = 0;
let wake = () => {};

/** The version that answers now: `{model_name, version}`, or null. */
export const servedNow = () => served;

/** Look often for a while: something is about to change. */
export function lookSoon() {
  hurry = 12;
  wake();
}

/** Look for ever; a version that takes another's place is told by the event `served`. */
export async function watch() {
  for (;;) {
    if (visible()) show(await look());
    const seconds = hurry-- > 0 ? 0.5 : EVERY;
    await Promise.race([pause(seconds), new Promise((done) => (wake = done))]);
  }
}

async function look() {
  try {
    const response = await fetch("/healthz/ready", { cache: "no-store" });
    return { response, found: await response.json() };
  } catch {
    return { response: null, found: {} };
  }
}

function show({ response, found }) {
  const state = response === null ? "gone" : response.ok ? "ready" : "waiting";
  const waiting = found.type?.endsWith(":no-version") ? "no version yet" : "not ready";
  const text = { gone: "no answer", waiting, ready: `serving ${nameOf(found)}` }[state];
  const pill = byId("status");
  if (pill.dataset.state !== state || byId("status-text").textContent !== text) {
    pill.dataset.state = state;
    byId("status-text").textContent = text;
    byId("gone").hidden = state !== "gone";
  }
  const now = state === "ready" ? found : null;
  const changed = now !== null && nameOf(now) !== (served === null ? null : nameOf(served));
  if (state !== "gone") served = now;
  if (changed) dispatchEvent(new Event("served"));
}

const nameOf = ({ model_name: name, version }) => (name ? `${name}/${version}` : "a bundle");
