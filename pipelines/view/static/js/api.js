// The page's own server: reading, writing with the token, and addresses inside the page.

const token = document.querySelector('meta[name="caplab-token"]').content;

/** GET; parameters that are null, undefined, "" or false are left away. */
export function get(path, parameters = {}, signal = undefined) {
  const query = queryOf(parameters);
  return answered(fetch(path + (query && `?${query}`), { signal }));
}

/** POST of a JSON object, with the token that only this page knows. */
export function post(path, body) {
  return answered(fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Caplab-Token": token },
    body: JSON.stringify(body),
  }));
}

async function answered(asked) {
  let response;
  try {
    response = await asked;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: was `caplab view` ended?");
  }
  const value = await response.json().catch(() => ({}));
  if (response.ok) return value;
  const error = new Error(value.error || `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

let known = null;
let pictures = ""; // changes with what the pictures of this dataset are

/** /api/about, asked once a page; `fresh` asks again, as after a write. */
export function about(fresh = false) {
  if (fresh || known === null) {
    known = get("/api/about").then((facts) => {
      pictures = facts.pictures;
      return facts;
    });
  }
  known.catch(() => { known = null; });
  return known;
}

/** Where a stored picture is; with `edge` its thumbnail. Browsers keep it under this address. */
export function pictureOf(key, edge = 0) {
  const [place, of] = edge ? ["thumbnail", { edge, of: pictures }] : ["picture", { of: pictures }];
  return `/${place}/${encodeURIComponent(key)}?${queryOf(of)}`;
}

/** The column of this name, of `about`. */
export function columnOf(about, name) {
  return about.columns.find((column) => column.name === name);
}

/** The hash of a place: link("sample/" + key), link("pictures", {sort: "aesthetic"}). */
export function link(place, parameters = {}) {
  const query = queryOf(parameters);
  const path = place.split("/").map(encodeURIComponent).join("/");
  return `#/${path}${query && `?${query}`}`;
}

function queryOf(parameters) {
  const pairs = Object.entries(parameters)
    .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
    .map(([name, value]) => [name, value === true ? "1" : String(value)]);
  return new URLSearchParams(pairs).toString();
}

/** Change the page's parameters in its address without leaving it and without a new entry. */
export function remember(place, parameters) {
  history.replaceState(null, "", link(place, parameters));
}
