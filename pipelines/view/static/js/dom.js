// Elements without HTML: a text is always a text node, so what strangers wrote stays text.

/**
 * An element.
 *
 * @param {string} tag
 * @param {object} about  class, on (event -> function), dataset; anything else is an attribute:
 *   true sets it empty, false, null and undefined leave it away. `value`, `checked`, `disabled`
 *   and `indeterminate` are set as properties.
 * @param children  nodes, texts, numbers, lists of these; null and false are left away.
 */
export function el(tag, about = {}, ...children) {
  return dressed(document.createElement(tag), about, children);
}

/** The same in SVG. */
export function svg(tag, about = {}, ...children) {
  return dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), about, children);
}

const PROPERTIES = new Set(["value", "checked", "disabled", "indeterminate", "selected", "hidden"]);

function dressed(node, about, children) {
  for (const [name, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.setAttribute("class", value);
    else if (name === "on") {
      for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    } else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "style") {
      for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text);
    } else if (PROPERTIES.has(name)) continue; // behind the children: a select needs its options
    else node.setAttribute(name, value === true ? "" : value);
  }
  put(node, children);
  for (const name of PROPERTIES) if (about[name] !== undefined) node[name] = about[name];
  return node;
}

/** Replace what an element holds. */
export function fill(node, ...children) {
  node.replaceChildren();
  put(node, children);
  return node;
}

function put(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Tell something above the page, until it is closed or, where it is no error, for a while. */
export function notice(text, kind = "bad") {
  const place = document.getElementById("notices");
  for (const other of [...place.children]) if (other.dataset.text === text) other.remove();
  const close = el("button", { class: "quiet", type: "button", "aria-label": "Close" }, "✕");
  const told = el("p", { class: `notice ${kind}`, dataset: { text } }, el("span", {}, text), close);
  close.addEventListener("click", () => told.remove());
  place.append(told);
  if (kind !== "bad") setTimeout(() => told.remove(), 6000);
  return told;
}

/** A number as a reader wants it: 1234567 -> "1,234,567"; digits are decimals. */
export function number(value, digits = 0) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "string") return value; // beyond what a double holds
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })
    .replace("-", "−");
}

/** A value of a column of /api/about as text. */
export function shown(value, column) {
  if (value === null || value === undefined) return "–";
  if (column.type === "number") return number(value, column.digits);
  if (column.type === "bool") return value ? "yes" : "no";
  return String(value);
}
