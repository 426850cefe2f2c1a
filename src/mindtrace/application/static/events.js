/* Server-sent events read by fetch: an EventSource could not send the token. */

import { request } from "./api.js";
import { pause } from "./dom.js";

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
