// A prompt with what each arm drew for it: as a row of the table, and on its own, large.

import { el, fill, number } from "../dom.js";
import { named } from "../mark.js";

/** A value of a metric as a reader wants it: shares in percent. */
export function valued(value, metric, { signed = false, digits = metric.digits } = {}) {
  if (value === null || value === undefined) return "–";
  const shown = metric.factor * value;
  const whole = Number.isInteger(Number(shown.toFixed(6)));
  return `${signed && shown > 0 ? "+" : ""}${number(shown, whole ? 0 : digits)}${signed ? metric.suffix : metric.unit}`;
}

/** @param view  {metric, marks, sorted: a and b are compared, open: (row) => void}. */
export function promptRow(row, view) {
  return el("tr", {},
    el("th", { scope: "row", class: "prompt" },
      el("button", { type: "button", class: "asked", dir: "auto", title: "Large, with every score", on: { click: () => view.open(row) } }, row.prompt),
      el("span", { class: "note" }, about(row)),
      view.sorted && el("span", { class: "difference" }, valued(row.difference, view.metric, { signed: true, digits: 1 }))),
    view.meant && el("td", { class: "meant", dataset: { arm: "meant" } }, meant(row)),
    row.cells.map((cell) => el("td", { dataset: { arm: cell.arm } }, one(row, cell, view))));
}

function about(row) {
  return [row.form, row.wording !== "own" && row.wording, row.category, row.held_out && "held out"].filter(Boolean).join(" · ");
}

function meant(row) {
  if (!row.meant) return el("span", { class: "absent" }, "nobody can draw what is meant");
  return el("span", { class: "frame" }, el("img", { src: row.meant, alt: `What is meant: ${row.prompt}`, loading: "lazy", decoding: "async" }));
}

function one(row, cell, view) {
  const score = cell.scores?.[view.metric.name];
  const seed = cell.seed === null ? "" : `, seed ${cell.seed}`;
  return el("figure", {},
    el("figcaption", {}, named(cell.arm, view.marks)),
    el("span", { class: "frame" }, cell.picture
      ? el("img", { src: cell.picture, alt: `Drawn by ${cell.arm}${seed}: ${row.prompt}`, loading: "lazy", decoding: "async" })
      : el("span", { class: "absent" }, `no picture: ${cell.why}`)),
    el("span", { class: score >= 0.999 && view.metric.unit ? "score full" : "score" },
      valued(score, view.metric),
      cell.mean !== null && el("small", { title: "mean over seeds and noises" }, `⌀ ${valued(cell.mean, view.metric, { digits: 0 })}`)));
}

/** The dialog of one prompt: large pictures, what is meant in words, every score of every arm. */
export function opened(dialog, row, view) {
  const known = view.metrics.filter(({ name }) => row.cells.some((cell) => cell.scores?.[name] != null));
  fill(dialog,
    el("form", { method: "dialog", class: "close" }, el("button", { class: "quiet", "aria-label": "Close" }, "✕")),
    el("h2", { dir: "auto" }, row.prompt),
    el("p", { class: "note" }, about(row)),
    el("div", { class: "large" },
      row.meant && el("figure", {}, el("figcaption", {}, "meant"), meant(row)),
      row.cells.map((cell) => one(row, cell, view))),
    row.questions.length > 0 && el("details", {}, el("summary", {}, "What the judge asks"),
      el("ul", {}, row.questions.map((question) => el("li", {}, question)))),
    !row.meant && row.intent && el("p", { class: "note" }, "Meant: ", row.intent),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "score"),
        row.cells.map((cell) => el("th", { scope: "col", class: "number" }, named(cell.arm, view.marks))))),
      el("tbody", {}, known.map((metric) => el("tr", {},
        el("th", { scope: "row", title: metric.meaning }, metric.label, metric.less_is_better && el("span", { class: "note" }, " (less is better)")),
        row.cells.map((cell) => el("td", { class: "number" }, valued(cell.scores?.[metric.name], metric)))))))));
  if (!dialog.open) dialog.showModal();
}
