// Texts of strangers: shown whole, as text, with what would hide or reorder letters made visible.

import { el, number } from "../dom.js";

// Controls but tab and line ends, bidirectional marks and overrides, zero-width and tag characters.
const HIDDEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;
const FOLDED = 700; // characters, and
const LINES = 12;

/** The start of a text that stands unfolded. */
function start(text) {
  let end = -1;
  for (let line = 0; line < LINES; line += 1) {
    end = text.indexOf("\n", end + 1);
    if (end < 0) break;
  }
  const cut = text.slice(0, end < 0 ? FOLDED : Math.min(end, FOLDED));
  return cut.length < text.length ? cut.replace(/[\ud800-\udbff]$/, "") : cut; // no half of a letter
}

/** Nodes of a text; each hidden character stands as a mark that names it. */
export function marked(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > end) nodes.push(text.slice(end, found.index));
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(el("span", { class: "hidden-letter", title: `the hidden character U+${code}` }, `U+${code}`));
    end = found.index + found[0].length;
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

/**
 * A text in a block of its own, folded where it is long.
 *
 * `characters` is the whole length where `text` is only its start, else null; then `rest` leads to the
 * whole.
 */
export function said(text, { characters = null, rest = null } = {}) {
  if (!text?.trim()) return el("p", { class: "said none" }, text ? "nothing but spaces" : "no text");
  const block = el("div", { class: "said", dir: "auto" });
  const shown = start(text);
  block.append(...marked(shown));
  if (shown.length === text.length && characters === null) return block;
  block.append("…");
  // Letters as the server counts them: an emoji is one and not two.
  const length = number(characters ?? [...text].length);
  const more = el("button", { type: "button", class: "quiet more" }, `all ${length} characters`);
  more.addEventListener("click", () => {
    if (characters !== null && rest) {
      rest();
      return;
    }
    block.replaceChildren(...marked(text));
    more.remove();
  });
  return el("div", {}, block, more);
}

/** A number with as many digits as tell values apart: 0.28345 -> 0.2835, 12345.6 -> 12,346. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 1000) return number(value);
  return size >= 0.001 ? number(value, Math.max(0, 3 - Math.floor(Math.log10(size)))) : value.toExponential(2);
}

export const bytes = (value) =>
  value === null || value === undefined ? "–"
    : value < 1024 ? `${value} bytes`
      : value < 1 << 20 ? `${number(value / 1024)} KiB` : `${number(value / (1 << 20), 1)} MiB`;
