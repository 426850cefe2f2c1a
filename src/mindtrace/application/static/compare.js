/* Two versions side by side, on the test set that both answered. */

import { ask, modelPath } from "./api.js";
import { button, el, say } from "./dom.js";
import { problemBox } from "./problem.js";
import { coloured, figures, verdictBox } from "./verdict.js";
import { percent } from "./words.js";

/** Open the panel in `place` and compare version b with version a. */
export function openComparison(place, name, a, b) {
  const fields = [versionField("a", "From version", a), versionField("b", "to version", b)];
  const result = el("div", { class: "comparison", "aria-live": "polite" });
  const form = el("form", { class: "versus", onsubmit: run },
    fields.map(({ label, input }) => el("span", {}, label, input)),
    el("button", { class: "primary" }, "Compare"),
    button("Close", () => (place.hidden = true), { class: "quiet" }));
  const title = el("h2", { tabindex: "-1" }, "Compare");
  place.replaceChildren(el("div", { class: "card" }, title, form, result));
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
  title.focus({ preventScroll: true });
  void run();

  async function run(event) {
    event?.preventDefault();
    const [first, second] = fields.map(({ input }) => input.value);
    result.setAttribute("aria-busy", "true");
    try {
      const { data } = await ask(`${modelPath(name)}/compare?a=${first}&b=${second}`);
      const { verdict, reasons } = data;
      result.replaceChildren(verdictBox(verdict, reasons), ...figures(data), classes(data));
      say(`${verdict}: ${reasons.join(", ")}`);
    } catch (error) {
      result.replaceChildren(problemBox(error));
    } finally {
      result.setAttribute("aria-busy", "false");
    }
  }
}

function versionField(id, text, value) {
  const input = el("input", {
    id: `compare-${id}`, type: "number", inputmode: "numeric", min: 1, step: 1, required: true, value,
  });
  return { input, label: el("label", { for: input.id }, text) };
}

function classes({ per_class: rows }) {
  const heads = ["Class", "Images", "Before", "Now", "Points"];
  return el("details", { open: rows.length <= 20 },
    el("summary", {}, "By class"),
    el("div", { class: "table" }, el("table", { class: "plain" },
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((one) => el("tr", {},
        el("th", { scope: "row" }, one.class_name), el("td", {}, `${one.n}`),
        el("td", {}, percent(one.acc_a)), el("td", {}, percent(one.acc_b)),
        el("td", {}, one.diff === null ? "" : coloured(one.diff))))))));
}
