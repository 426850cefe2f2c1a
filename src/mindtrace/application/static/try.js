/* "Try it": a drawing or a picture goes to /inference as soon as it is there. */

import { ask, modelPath, servedNow } from "./api.js";
import { button, byId, el, percent, say, tell } from "./dom.js";
import { framed, Pad, styleOf } from "./pad.js";

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

/* What the network said: the label, a bar for every class, and what it was shown. */

const FEW = 20; // classes that are shown in their order; of more, the likeliest come first
const SHOWN = 12;
const BRIGHT = 110; // mean level of 255 above which a picture is not light on dark

/** Before anything was asked. */
function showNothing(place) {
  place.replaceChildren(
    el("p", { class: "nothing" }, "The answer comes here, with every stroke."),
  );
}

/** Show an answer and return it in words. */
function showAnswer(place, data, milliseconds, lightOnDark) {
  const view = place.querySelector(".result") ?? emptyResult(place);
  const name = data.model_name ? `${data.model_name}/${data.version}` : "a bundle";
  view.querySelector(".label").textContent = data.class_name;
  view.querySelector(".label").classList.toggle("long", data.class_name.length > 3);
  view.querySelector(".sure").textContent = percent(data.confidence);
  view.querySelector(".who").textContent = `${name} · ${milliseconds.toFixed(0)} ms`;
  view.querySelector(".who").title = "Model and version that answered, and the time there and back";
  showBars(view.querySelector(".bars"), data);
  showInput(view, data.input, lightOnDark);
  return `${data.class_name}, ${percent(data.confidence)}`;
}

function emptyResult(place) {
  const view = el(
    "div",
    { class: "result" },
    el("div", { class: "headline" },
      el("output", { class: "label", for: "pad file" }),
      el("div", {}, el("div", { class: "sure" }), el("div", { class: "who soft small" }))),
    el("ul", { class: "bars", "aria-label": "Probability of every class" }),
    el("figure", { class: "input" },
      el("img", { alt: "The image as the network sees it" }),
      el("figcaption", { class: "soft small" })),
  );
  place.replaceChildren(view);
  return view;
}

function showBars(list, data, everything = false) {
  const classes = data.top_k;
  const few = classes.length <= FEW;
  const rows = few ? [...classes].sort((a, b) => a.label - b.label)
    : everything ? classes : classes.slice(0, SHOWN);
  // The same rows keep their elements, so that a bar grows from where it was.
  while (list.children.length > rows.length) list.lastChild.remove();
  while (list.children.length < rows.length) list.append(emptyBar());
  rows.forEach((row, i) => {
    const [name, track, share] = list.children[i].children;
    name.textContent = row.class_name;
    share.textContent = percent(row.confidence);
    track.firstChild.style.setProperty("--share", row.confidence);
    list.children[i].classList.toggle("best", row.label === data.label);
  });
  list.parentNode.querySelector(".more")?.remove();
  if (!few && !everything) {
    const more = button(`All ${classes.length} classes`, () => showBars(list, data, true));
    more.className = "more";
    list.after(more);
  }
}

function emptyBar() {
  return el("li", {}, el("span", { class: "class" }),
    el("span", { class: "track" }, el("span", { class: "bar" })), el("span", { class: "share" }));
}

function showInput(view, png, lightOnDark) {
  const image = view.querySelector(".input img");
  const caption = view.querySelector("figcaption");
  image.onload = () => {
    caption.replaceChildren(
      `As the network sees it: ${image.naturalWidth}\u00a0×\u00a0${image.naturalHeight} pixels.`,
      ...(lightOnDark && meanLevel(image) > BRIGHT
        ? [el("strong", {}, "This picture is dark on light. The network has learnt light on dark, ",
          "so do not trust its answer.")]
        : []),
    );
  };
  image.src = `data:image/png;base64,${png}`;
}

function meanLevel(image) {
  const canvas = Object.assign(document.createElement("canvas"), {
    width: image.naturalWidth, height: image.naturalHeight,
  });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum += data[i] + data[i + 1] + data[i + 2];
  return sum / (0.75 * data.length);
}
