// Names of columns and functions offered while a rule is typed: arrows choose, Tab or Enter takes.

import { el, fill } from "../dom.js";

const WORD = /"?[\p{L}_][\p{L}\p{N}_]*$/u;
const MOST = 8;
const PLAIN = /^[A-Za-z_]\w*$/;

/** A name as it stands in SQL. */
const quoted = (name) => (PLAIN.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

/**
 * Complete words of a textarea.
 *
 * @param {HTMLTextAreaElement} box
 * @param {Array<{name, label}>} columns
 * @returns the list to put below the box
 */
export function completing(box, columns) {
  const words = [
    ...columns.map(({ name, label }) => ({ text: quoted(name), told: label === name ? "" : label })),
    { text: "top_fraction(", told: "the best of all by a column: top_fraction(aesthetic, 0.3)" },
    { text: "in_selection(", told: "is in a stored selection: in_selection('good')" },
  ];
  const list = el("ul", { class: "completions", role: "listbox", id: "completions", hidden: true,
    "aria-label": "Columns and functions" });
  box.setAttribute("aria-controls", "completions");
  box.setAttribute("aria-autocomplete", "list");
  let found = [], at = 0;

  const typed = () => box.value.slice(0, box.selectionStart).match(WORD)?.[0] ?? "";

  function close() {
    found = [];
    list.hidden = true;
  }

  function look() {
    const word = typed().toLowerCase().replace('"', "");
    found = !word ? [] : words
      .map((one) => ({ ...one, place: one.text.toLowerCase().indexOf(word) }))
      .filter(({ text, place }) => place >= 0 && text.toLowerCase() !== word)
      .sort((one, other) => Math.sign(one.place) - Math.sign(other.place)).slice(0, MOST);
    at = 0;
    draw();
  }

  function draw() {
    list.hidden = !found.length;
    fill(list, found.map(({ text, told }, index) => el("li", {
      role: "option", "aria-selected": index === at ? "true" : "false",
      on: { pointerdown: (event) => { event.preventDefault(); take(index); } },
    }, el("code", {}, text), told && el("span", { class: "muted" }, ` ${told}`))));
  }

  function take(index) {
    const { text } = found[index];
    const end = box.selectionStart;
    box.setRangeText(text, end - typed().length, end, "end");
    close();
    box.dispatchEvent(new Event("input", { bubbles: true }));
    close();
  }

  box.addEventListener("input", look);
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (!found.length) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      at = (at + step + found.length) % found.length;
      draw();
    } else if (event.key === "Tab" || event.key === "Enter") take(at);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  return list;
}
