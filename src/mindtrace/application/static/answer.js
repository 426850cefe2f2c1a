/* What the network said: the label, a bar for every class, and what it was shown. */

import { button, el } from "./dom.js";
import { percent } from "./words.js";

const FEW = 20; // classes that are shown in their order; of more, the likeliest come first
const SHOWN = 12;
const BRIGHT = 110; // mean level of 255 above which a picture is not light on dark

/** Before anything was asked. */
export function showNothing(place) {
  place.replaceChildren(
    el("p", { class: "nothing" }, "The answer comes here, with every stroke."),
  );
}

/** Show an answer and return it in words. */
export function showAnswer(place, data, milliseconds, lightOnDark) {
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
