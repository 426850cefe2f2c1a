/* Asking the server: JSON goes out and comes in, everything else is a `Refusal`. */

import { demandToken, token } from "./token.js";

/** The server's problem document (RFC 9457), or that there was no answer: status 0. */
export class Refusal extends Error {
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
