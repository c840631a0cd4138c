// The mark of an arm or a caption kind: one colour and one outline, as in the reports.

import { el, svg } from "./dom.js";

let kinds = {};

/** Have the marks of the caption kinds of what is opened: name -> {css, outline}. */
export function know(marks) {
  kinds = marks ?? {};
}

/** A mark inside an SVG, about `r` units in radius. */
export function marker(mark, x, y, r) {
  if (!mark?.outline) return svg("circle", { class: `mark ${mark?.css ?? ""}`, cx: x, cy: y, r });
  const points = mark.outline.map(([dx, dy]) => `${x + r * dx},${y + r * dy}`).join(" ");
  return svg("polygon", { class: `mark ${mark.css}`, points });
}

/** A name with its mark before it. */
export function named(name, marks = kinds, text = name) {
  const mark = marks[name];
  return el("span", { class: "arm" },
    mark && svg("svg", { width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" }, marker(mark, 7, 7, 5)),
    el("span", {}, text));
}
