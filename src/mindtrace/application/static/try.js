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
  for (const id of ["undo", "clear"]) {
    byId(id).addEventListener("click", () => (picture ? setPicture(null) : pad[id]()));
  }
  byId("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file may be chosen again
  });
  byId("picture").addEventListener("error", () => (byId("picture").hidden = true));
  // Anywhere on the page: a picture that misses the pad must not replace the page.
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      byId("slate").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  addEventListener("paste", (event) => take(event.clipboardData.files));
  addEventListener("served", () => void classify());
  void classify();
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
    const source = await learntFrom(signal);
    const style = styleOf(source);
    byId("framing").textContent = picture === null ? style.words : "";
    if (!drawn && picture === null) {
      const text = "The answer comes here, with every stroke.";
      return place.replaceChildren(el("p", { class: "nothing" }, text));
    }
    const image = picture ? await inBase64(picture) : framed(pad.strokes, style);
    const began = performance.now();
    const { data } = await ask("/inference", {
      method: "POST",
      json: { image, top_k: ALL, show_input: true },
      signal,
    });
    showAnswer(place, data, performance.now() - began, ["mnist", "digits"].includes(source));
    if (!byId("try").hidden) say(`${data.class_name}, ${percent(data.confidence)}`);
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

function showAnswer(place, data, milliseconds, lightOnDark) {
  const view = place.querySelector(".result") ?? emptyResult(place);
  const name = data.model_name ? `${data.model_name}/${data.version}` : "a bundle";
  const [label, sure, who] = view.querySelectorAll(".label, .sure, .who");
  label.textContent = data.class_name;
  label.classList.toggle("long", data.class_name.length > 3);
  sure.textContent = percent(data.confidence);
  who.textContent = `${name} · ${milliseconds.toFixed(0)} ms`;
  showBars(view.querySelector(".bars"), data);
  showInput(view, data.input, lightOnDark);
}

function emptyResult(place) {
  const title = "Model and version that answered, and the time there and back";
  const view = el("div", { class: "result" },
    el("div", { class: "headline" },
      el("output", { class: "label", for: "pad file" }),
      el("div", {}, el("div", { class: "sure" }), el("div", { class: "who soft small", title }))),
    el("ul", { class: "bars", "aria-label": "Probability of every class" }),
    el("figure", { class: "input" },
      el("img", { alt: "The image as the network sees it" }),
      el("figcaption", { class: "soft small" })));
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
  while (list.children.length < rows.length) {
    const track = el("span", { class: "track" }, el("span", { class: "bar" }));
    list.append(el("li", {}, el("span", { class: "class" }), track, el("span", { class: "share" })));
  }
  rows.forEach((row, i) => {
    const [name, track, share] = list.children[i].children;
    name.textContent = row.class_name;
    share.textContent = percent(row.confidence);
    track.firstChild.style.setProperty("--share", row.confidence);
    list.children[i].classList.toggle("best", row.label === data.label);
  });
  list.parentNode.querySelector(".more")?.remove();
  if (!few && !everything) {
    const show = () => showBars(list, data, true);
    list.after(button(`All ${classes.length} classes`, show, { class: "more" }));
  }
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
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = el("canvas", { width, height }).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum += data[i] + data[i + 1] + data[i + 2];
  return sum / (0.75 * data.length);
}
