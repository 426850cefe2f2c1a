/* /docs and /redoc: the OpenAPI document in Swagger UI or Redoc, asked for with the token. */

import { ask, changeToken, token } from "./api.js";
import { byId, el, tell } from "./dom.js";

const VIEWERS = { "/docs": showSwagger, "/redoc": showRedoc };
const place = byId("main");

async function show() {
  try {
    const { data } = await ask("/openapi.json");
    byId("token").remove();
    await VIEWERS[location.pathname](data);
  } catch (error) {
    tell(place, error);
  }
}

/** Run a script of the viewer, which is no module. */
const load = (name) => new Promise((onload, fail) => {
  const onerror = () => fail(new Error(`${name} cannot be loaded`));
  document.head.append(el("script", { src: `/static/${name}`, onload, onerror }));
});

async function showSwagger(spec) {
  byId("style").setAttribute("href", "/static/swagger-ui.css");
  await load("swagger-ui-bundle.js");
  const requestInterceptor = (request) => {
    if (token()) request.headers.Authorization = `Bearer ${token()}`;
    return request;
  };
  SwaggerUIBundle({ spec, domNode: place, deepLinking: true, requestInterceptor });
}

async function showRedoc(spec) {
  byId("style").remove();
  await load("redoc.standalone.js");
  // Its only picture is a logo of another host; its search is a worker, which the policy refuses.
  Object.defineProperties(HTMLImageElement.prototype, {
    setAttribute: { value() {} }, src: { set() {} },
  });
  Redoc.init(spec, { disableSearch: true }, place);
}

byId("token").addEventListener("click", () => void changeToken());
addEventListener("token", show);
void show();
