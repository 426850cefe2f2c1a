/* The page: which part of it is shown, and what runs from its beginning. */

import { changeToken, token, watch } from "./api.js";
import { byId } from "./dom.js";
import { startJobs } from "./jobs.js";
import { startModels } from "./models.js";
import { startTrying } from "./try.js";

const PARTS = ["try", "models", "jobs"];
const open = { models: startModels(), jobs: startJobs() };

let part = PARTS[0];

/** Show the part that the address names, `#PART/...`; others, such as that of the skip link, change nothing. */
function show(focus) {
  const [wanted, ...within] = location.hash.slice(1).split("/");
  if (PARTS.includes(wanted)) part = wanted;
  else if (focus) return;
  for (const id of PARTS) byId(id).hidden = id !== part;
  for (const link of document.querySelectorAll("nav a")) {
    link.ariaCurrent = link.hash === `#${part}` ? "page" : null;
  }
  if (focus) byId(`${part}-title`).focus({ preventScroll: true });
  scrollTo(0, 0);
  open[part]?.(...within);
}

byId("token").hidden = token() === null;
byId("token").addEventListener("click", () => void changeToken());
addEventListener("token", () => show(false));
addEventListener("hashchange", () => show(true));
startTrying();
show(false);
void watch();
