/* "Try it": a drawing or a picture goes to /inference as soon as it is there. */

import { ask, modelPath } from "./api.js";
import { showAnswer, showNothing } from "./answer.js";
import { byId, say } from "./dom.js";
import { framed, styleOf } from "./frame.js";
import { Pad } from "./pad.js";
import { tell } from "./problem.js";
import { servedNow } from "./status.js";

const ALL = 100000; // classes to list: all of them
const sources = new Map(); // what versions have learnt from, by NAME/VERSION
let pad;
let picture = null; // the file that is shown in the place of the drawing
let asking = new AbortController();

/** Make the view alive; it stays so while others are shown. */
export function startTrying() {
  pad = new Pad(byId("pad"), () => void classify());
  byId("undo").addEventListener("click", () => (picture ? setPicture(null) : pad.undo()));
  byId("clear").addEventListener("click", () => (picture ? setPicture(null) : pad.clear()));
  byId("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file may be chosen again
  });
  byId("picture").addEventListener("error", () => (byId("picture").hidden = true));
  takeDropsAndPastes();
  addEventListener("served", () => void classify());
  void classify();
}

function takeDropsAndPastes() {
  const slate = byId("slate");
  const over = (event) => {
    event.preventDefault();
    slate.classList.toggle("over", event.type === "dragover");
  };
  // Anywhere on the page: a picture that misses the pad must not replace the page.
  for (const kind of ["dragover", "dragleave"]) addEventListener(kind, over);
  addEventListener("drop", (event) => {
    over(event);
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files);
  });
}

function take(files) {
  if (files.length === 0) return;
  if (location.hash !== "#try") location.hash = "#try";
  setPicture(files[0]);
}

function setPicture(file) {
  picture = file;
  const image = byId("picture");
  if (image.src) URL.revokeObjectURL(image.src);
  image.hidden = file === null;
  if (file === null) image.removeAttribute("src");
  else image.src = URL.createObjectURL(file);
  image.alt = file ? `The picture ${file.name}` : "";
  byId("pad").hidden = file !== null;
  if (file === null) byId("pad").focus({ preventScroll: true });
  void classify();
}

/** Ask about what is there now; what was asked before does not matter any more. */
async function classify() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const drawn = picture === null && pad.strokes.length > 0;
  byId("undo").disabled = byId("clear").disabled = !drawn && picture === null;
  byId("pad-empty").hidden = drawn || picture !== null;
  const place = byId("answer");
  place.setAttribute("aria-busy", "true");
  try {
    const style = styleOf(await learntFrom(signal));
    byId("framing").textContent = picture === null ? style.words : "";
    if (!drawn && picture === null) return showNothing(place);
    const image = picture ? await inBase64(picture) : framed(pad.strokes, style);
    const began = performance.now();
    const { data } = await ask("/inference", {
      method: "POST",
      json: { image, top_k: ALL, show_input: true },
      signal,
    });
    const words = showAnswer(place, data, performance.now() - began, await lightOnDark(signal));
    if (!byId("try").hidden) say(words);
  } catch (error) {
    if (!signal.aborted) tell(place, error);
  } finally {
    if (!signal.aborted) place.setAttribute("aria-busy", "false");
  }
}

/** The `[data] source` of the version that answers, or null where it cannot be known. */
async function learntFrom(signal) {
  const { model_name: name, version } = servedNow() ?? {};
  if (!name) return null;
  const key = `${name}/${version}`;
  if (!sources.has(key)) {
    try {
      const { data } = await ask(`${modelPath(name)}/versions/${version}`, { signal, quiet: true });
      sources.set(key, data.params["data.source"] ?? null);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return null; // what it is drawn for is a guess then; the answer will tell what is wrong
    }
  }
  return sources.get(key);
}

async function lightOnDark(signal) {
  return ["mnist", "digits"].includes(await learntFrom(signal));
}

function inBase64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}
