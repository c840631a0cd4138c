// A group of copies: the kept one first, each other with its distance and what decided against it.

import { link } from "../api.js";
import { el, number } from "../dom.js";
import { thumbnail } from "../grid.js";
import { figure, marked } from "./text.js";

/** @param {object} options  `title` before the count; `quality`: names of the values; `current`: a key. */
export function groupOf(group, { title = "", quality = [], current = null } = {}) {
  const left = group.size - group.members.length;
  return el("section", { class: group.members.length > 3 ? "group large" : "group" },
    el("h3", {}, `${title}${number(group.size)} pictures `, el("span", { class: "soft" }, marked(group.why))),
    el("ul", { class: "members" }, group.members.map((one) => member(one, quality, current))),
    left > 0 && el("p", { class: "soft" }, `and ${number(left)} further ones, farther away`));
}

function member(one, quality, current) {
  const row = { key: one.key, text: one.alt_text };
  return el("li", { class: one.kept ? "member kept" : "member" },
    el("a", { href: link(`sample/${one.key}`), "aria-current": one.key === current && "true" },
      el("span", { class: "frame" }, thumbnail(row, 160))),
    el("div", { class: "about" },
      one.kept ? el("strong", { class: "status ok" }, "kept")
        : el("span", {}, distance(one)),
      one.key === current && el("em", {}, "this one"),
      el("span", { class: "soft" }, one.width ? `${number(one.width)} × ${number(one.height)}` : "not stored"),
      quality.map((name, place) => el("span", {
        class: one.decided_by === place ? "value decided" : "value", title: name,
      }, `${short(name)} ${figure(one.values[place])}`)),
      one.why && el("span", { class: "soft why" }, `the kept one ${one.why}`)));
}

function distance(one) {
  if (one.by === "exact") return "equal";
  return `${one.by}: ${figure(one.distance)} ${one.unit}`;
}

const short = (name) => name.replaceAll("width * height", "pixels").replaceAll("clip_", "CLIP ").replaceAll("_", " ");
