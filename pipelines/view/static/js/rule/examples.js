// Pictures of both sides: next to a cut, and at random with what dropped each.

import { link } from "../api.js";
import { el, fill, number } from "../dom.js";
import { thumbnail } from "../grid.js";

const EDGE = 112; // px

function strip(rows, told) {
  if (!rows.length) return el("p", { class: "empty" }, "No picture is here.");
  return el("div", { class: "strip" }, rows.map((row) =>
    el("a", { class: "shot", href: link(`sample/${row.key}`), title: row.text || "without a text" },
      el("div", { class: "frame" }, thumbnail(row, EDGE)),
      told(row) && el("div", { class: "told", title: told(row) }, told(row)))));
}

/** {below, above} of /api/examples, with the kept side said. */
export function besideCut(place, sides, slider) {
  const value = (row) => (row.value === null ? "–" : String(Number(Number(row.value).toPrecision(4))));
  const above = slider.operator.startsWith(">") || slider.share;
  const cut = slider.share ? Number((slider.threshold ?? 0).toPrecision(4)) : slider.value;
  fill(place,
    el("h2", {}, "At the cut ", el("code", {}, `${slider.expression} = ${cut}`)),
    el("p", { class: "note" }, "The nearest of those that every other rule lets through."),
    el("div", { class: "sides" },
      [["below", "Just below", !above], ["above", "Just above", above]].map(([side, label, kept]) =>
        el("section", { class: kept ? "good" : "bad", dataset: { side } },
          el("h3", {}, label, el("span", { class: "verdict" }, kept ? "kept" : "dropped")),
          strip(sides[side], value)))));
}

/** Random samples of both sides; `funnel` offers what one step dropped. */
export function atRandom(place, { kept, dropped, answer, step, where, changed }) {
  const removed = ({ removed_in_order: failed, unscored_in_order: unscored }) => failed + unscored;
  const choose = el("select", { id: "step", value: step, on: { change: ({ target }) => changed({ step: target.value }) } },
    el("option", { value: "" }, "by any rule"),
    answer.funnel.map((told, index) => removed(told) > 0 &&
      el("option", { value: String(index) }, `by ${told.rule} (${number(removed(told))})`)));
  const all = (side, count) => count > 0 && el("a",
    { href: link("pictures", { where, side, keep_duplicates: answer.keep }) }, `all ${number(count)}`);
  fill(place,
    el("h2", {}, "At random ",
      el("button", { type: "button", id: "others", title: "Draw others (o)", on: { click: () => changed({ others: true }) } }, "↻ Others")),
    el("div", { class: "sides" },
      el("section", { class: "good", dataset: { side: "kept" } },
        el("h3", {}, "Kept", all("kept", answer.kept)), strip(kept, () => "")),
      el("section", { class: "bad", dataset: { side: "dropped" } },
        el("h3", {}, el("label", { for: "step" }, "Dropped"), choose, all("dropped", answer.stored - answer.kept)),
        strip(dropped, (row) => (row.unscored ? `no value: ${row.dropped_by}` : row.dropped_by)))));
}
