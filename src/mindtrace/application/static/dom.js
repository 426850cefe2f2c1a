/* Ways to make elements. Text is always text: nothing in this page parses HTML. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `on...` attributes are listeners, false ones are left out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A button that says what it does. */
export function button(text, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, text);
}

/** Tell those who cannot see what has changed; the same words twice are told twice. */
export function say(text) {
  const region = byId("said");
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}

/** Whether the user looks at the page now. */
export const visible = () => document.visibilityState === "visible";

export const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
