/* "Try it": a drawing or pictures go to /inference as soon as they are there. */

import { ask, servedNow } from "./api.js";
import { button, byId, count, el, percent, say, table, tell } from "./dom.js";
import { framed, Pad, styleOf } from "./pad.js";

const DETAILS = { top_k: 100000, show_input: true }; // of one picture: every class
const NAMED = 8; // classes whose names are said; the others are there to be opened
const AT_ONCE = 4; // pictures of several that are sent before the first is answered
const UNKNOWN = { isDigits: true, input: { height: 28 } };
let pad;
let card = UNKNOWN; // of the network that answers: `{input, classes, isDigits}`
let pictures = []; // the files that are shown in the place of the drawing
let urls = []; // of these files
let asking = new AbortController();

/** Make the view alive; it stays so while others are shown. */
export function startTrying() {
  pad = new Pad(byId("pad"), () => void classify());
  for (const id of ["undo", "clear"]) {
    byId(id).addEventListener("click", () => (pictures.length ? setPictures([]) : pad[id]()));
  }
  byId("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file may be chosen again
  });
  byId("slate").addEventListener("click", () => card.isDigits || byId("file").click());
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
  addEventListener("served", () => {
    card = UNKNOWN;
    // A list stays as it is: each line of its file names the version that has answered.
    if (pictures.length < 2) void classify();
  });
}

function take(files) {
  if (files.length === 0) return;
  if (!location.hash.startsWith("#try")) location.hash = "#try";
  setPictures([...files]);
}

function setPictures(files) {
  for (const url of urls) URL.revokeObjectURL(url);
  pictures = files;
  urls = files.map((file) => URL.createObjectURL(file));
  byId("pad").hidden = files.length > 0;
  showPicture(0);
  if (files.length === 0) byId("pad").focus({ preventScroll: true });
  void classify();
}

/** Show one of the pictures large, or none. */
function showPicture(index) {
  const [image, file] = [byId("picture"), pictures[index]];
  image.hidden = file === undefined;
  image.src = urls[index] ?? "";
  image.alt = file ? `The picture ${file.name}` : "";
}

/** Ask about what is there now; what was asked before does not matter any more. */
async function classify() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const drawn = pictures.length === 0 && pad.strokes.length > 0;
  const nothing = !drawn && pictures.length === 0;
  byId("undo").disabled = byId("clear").disabled = nothing;
  byId("pad-empty").hidden = !nothing;
  const [place, sending] = [byId("answer"), byId("sending")];
  place.setAttribute("aria-busy", "true");
  sending.removeAttribute("value");
  sending.hidden = pictures.length === 0;
  try {
    if (card === UNKNOWN) card = await servedCard(signal);
    describe();
    if (nothing) {
      const text = `The answer comes here${card.isDigits ? ", with every stroke" : ""}.`;
      return place.replaceChildren(el("p", { class: "nothing" }, text));
    }
    if (pictures.length > 1) return await classifyAll(place, sending, signal);
    const image = drawn ? framed(pad.strokes, styleOf(card.input)) : await inBase64(pictures[0]);
    const began = performance.now();
    const data = await answered(image, signal);
    showAnswer(place, data, performance.now() - began);
    if (!byId("try").hidden) say(`${data.class_name}, ${percent(data.confidence)}`);
  } catch (error) {
    if (!signal.aborted) tell(place, error);
  } finally {
    if (!signal.aborted) {
      place.setAttribute("aria-busy", "false");
      sending.hidden = true;
    }
  }
}

const answered = async (image, signal) => (await ask("/inference", {
  method: "POST", json: { image, ...(pictures.length < 2 && DETAILS) }, signal,
})).data;

function inBase64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

/* What the network that answers takes and tells apart, and what the page says of it. */

async function servedCard(signal) {
  const served = servedNow();
  if (served === null) return UNKNOWN;
  try {
    const path = `/v2/models/${encodeURIComponent(served.model_name ?? "bundle")}`;
    const { inputs, outputs } = (await ask(path, { signal, quiet: true })).data;
    const said = (tensors, name) => tensors.find((one) => one.name === name).parameters;
    const input = said(inputs, "input");
    const classes = said(outputs, "class_name").class_names;
    // As MNIST and the digits data have them: grey, light on dark, of their size.
    const isDigits = classes.join() === "0,1,2,3,4,5,6,7,8,9" && input.mode === "L" &&
      [8, 28].includes(input.height) && input.mean[0] < 0.5;
    return { input, classes, isDigits };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return UNKNOWN; // the answer will tell what is wrong
  }
}

/** Title, hints and pad as the network wants them. */
function describe() {
  const { classes, isDigits: draws } = card;
  byId("try").classList.toggle("pictures", !draws);
  byId("trying").hidden = false;
  byId("try-title").textContent = draws ? "Draw a digit, or give a picture"
    : classes.length > 3 ? `Which of ${classes.length} classes?` : `${classes.join(" or ")}?`;
  byId("pad-empty").textContent = draws ? "Draw here" : "Drop pictures here";
  byId("framing").replaceChildren(
    ...(draws ? [el("p", {}, pictures.length ? "" : styleOf(card.input).words)] : hints(card)),
  );
}

const FITS = {
  crop: "the middle of a picture", stretch: "a picture stretched to fit",
  pad: "a picture with black borders",
};

function hints({ classes, input: { mode, resize, width, height } }) {
  const colour = mode === "L" ? "grey" : "colour";
  const size = `${width}\u00a0×\u00a0${height} pixels in ${colour}`;
  return [
    el("p", {}, `The network sees ${FITS[resize]}: ${size}.`),
    el("details", { open: classes.length <= NAMED },
      el("summary", {}, `It tells ${classes.length} classes apart`), classes.join(", ")),
  ];
}

/* Several pictures: a line for each, as its answer comes. */

const COLUMNS = ["path", "label", "class_name", "confidence", "model_name", "version", "error"];

async function classifyAll(place, sending, signal) {
  const [files, answers, summary] = [pictures, [], el("p", { class: "soft small" })];
  const save = button("Download as CSV", () => download(answers), { disabled: true });
  const unanswered = files.map((file, i) => [thumbnail(file, i), "", ""]);
  const list = table(["Picture", "Class", "Confidence"], unanswered, "plain tall");
  const rows = [...list.querySelectorAll("tbody tr")];
  const title = el("h2", {}, count(files.length, "picture"));
  place.replaceChildren(el("div", { class: "titled" }, title, save), summary, list);
  const waiting = files.entries();
  let done = 0;
  const work = async () => {
    for (const [i, file] of waiting) {
      const answer = await inBase64(file).then((image) => answered(image, signal))
        .catch((fault) => ({ error: fault.message }));
      if (signal.aborted) return;
      answers[i] = { path: file.name, ...answer };
      const { class_name: name, confidence, error } = answers[i];
      rows[i].cells[1].replaceChildren(error ? el("span", { class: "down" }, error) : name);
      rows[i].cells[2].textContent = percent(confidence);
      sending.value = ++done / files.length;
      summary.textContent = `${done} of ${files.length}`;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (signal.aborted) return;
  summary.textContent = summed(answers);
  save.disabled = false;
  say(`${count(files.length, "picture")}: ${summary.textContent}`);
}

const thumbnail = (file, index) => el("button",
  { type: "button", class: "thumbnail", onclick: () => showPicture(index) },
  el("img", {
    src: urls[index], alt: "", loading: "lazy", onerror: ({ target }) => (target.hidden = true),
  }), el("span", {}, file.name));

/** How often each class was the answer: the most frequent ones, and what failed. */
function summed(answers) {
  const times = new Map();
  for (const { class_name: name = "without an answer" } of answers) {
    times.set(name, (times.get(name) ?? 0) + 1);
  }
  const most = [...times].sort(([, a], [, b]) => b - a).map(([name, n]) => `${n} ${name}`);
  return most.slice(0, NAMED).join(", ") + (most.length > NAMED ? " …" : "");
}

function download(answers) {
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = answers.map((one) => COLUMNS.map((name) => quoted(`${one[name] ?? ""}`)));
  const text = [COLUMNS, ...lines].map((cells) => `${cells.join()}\r\n`);
  const href = URL.createObjectURL(new Blob(text, { type: "text/csv" }));
  el("a", { href, download: "predictions.csv" }).click();
  URL.revokeObjectURL(href);
}

/* What the network said: the label, a bar for every class, and what it was shown. */

const FEW = 20; // classes that are shown in their order; of more, the likeliest come first
const SHOWN = 12;
const BRIGHT = 110; // mean level of 255 above which a picture is not light on dark

function showAnswer(place, data, milliseconds) {
  const view = place.querySelector(".result") ?? emptyResult(place);
  const name = data.model_name ? `${data.model_name}/${data.version}` : "a bundle";
  const [label, sure, who] = view.querySelectorAll(".label, .sure, .who");
  label.textContent = data.class_name;
  label.classList.toggle("long", data.class_name.length > 3);
  sure.textContent = percent(data.confidence);
  who.textContent = `${name} · ${milliseconds.toFixed(0)} ms`;
  showBars(view.querySelector(".bars"), data);
  showInput(view, data.input);
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

function showInput(view, png) {
  const image = view.querySelector(".input img");
  const caption = view.querySelector("figcaption");
  image.onload = () => {
    image.classList.toggle("coarse", image.naturalWidth < 64);
    caption.replaceChildren(
      `As the network sees it: ${image.naturalWidth}\u00a0×\u00a0${image.naturalHeight} pixels.`,
      ...(card.isDigits && meanLevel(image) > BRIGHT
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
