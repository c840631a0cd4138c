// Keys of the page that is shown. `?` lists them.

import { el, fill } from "./dom.js";

let bound = new Map();

/**
 * Bind keys while the page is shown: onKeys({"j": ["next picture", f], "/": g}).
 * A key is a `KeyboardEvent.key`; keys do nothing while a text is typed, but Escape.
 */
export function onKeys(keys) {
  for (const [key, value] of Object.entries(keys)) {
    const [label, call] = Array.isArray(value) ? value : ["", value];
    bound.set(key, { label, call });
  }
}

/** Forget them: another page comes. */
export function clearKeys() {
  bound = new Map();
}

/** List keys in the dialog that `?` opens. */
export function listKeys(more = {}) {
  const rows = [...bound].filter(([, { label }]) => label).map(([key, { label }]) => [key, label]);
  for (const [key, label] of Object.entries(more)) rows.push([key, label]);
  rows.push(["?", "these keys"]);
  const dialog = document.getElementById("keys");
  fill(
    dialog,
    el("h2", { id: "keys-title" }, "Keys"),
    el("dl", {}, rows.map(([key, label]) => [el("dt", {}, el("kbd", {}, named(key))), el("dd", {}, label)])),
    el("form", { method: "dialog" }, el("button", {}, "Close")),
  );
  if (!dialog.open) dialog.showModal();
}

const NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc", " ": "Space" };
const named = (key) => key.split(" / ").map((one) => NAMES[one] ?? one).join(" / ");

function typing(target) {
  return target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName) ||
    (target.tagName === "INPUT" && !/^(checkbox|radio|button|submit|range)$/.test(target.type));
}

let listing = () => listKeys();

/** What `?` does; the page's grid adds its own keys. */
export function onList(call) {
  listing = call;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (typing(event.target) && event.key !== "Escape") return;
  if (document.querySelector("dialog[open]")) return;
  const found = bound.get(event.key);
  if (found) {
    event.preventDefault();
    found.call(event);
  } else if (event.key === "?") {
    event.preventDefault();
    listing();
  }
});
