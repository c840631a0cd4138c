// Captions side by side: a picture a row, filtered, and for honest looking blind and shuffled.

import { about, get, link, remember } from "../api.js";
import { el, fill, number } from "../dom.js";
import { thumbnail } from "../grid.js";
import { onKeys } from "../keys.js";
import { captionCell } from "../record/caption.js";
import { markingKeys } from "../record/marking.js";
import { pager } from "../record/pager.js";

const SIZE = 20;
const MOST_SETS = 4; // shown unasked
const FILTERS = ["kind", "source", "status", "gate", "mark", "text"];

export async function show(main, params) {
  const [facts, { sets, statuses, gates, marks }] = await Promise.all([about(), get("/api/captions/sets")]);
  const state = Object.fromEntries(params);
  const set = (name, value) => { state[name] = value || ""; state.start = "0"; draw(); };
  const opened = String(Date.now()); // marks that came before count, later ones move nothing
  let revealed = false;

  const list = el("div", { class: "caption-rows" });
  const [pages, below] = [el("div", { class: "pager" }), el("div", { class: "pager" })];
  const counts = el("span", { class: "count" });
  fill(
    main,
    el("form", { class: "tools", on: { submit: (event) => event.preventDefault() } },
      filters(),
      setsMenu(),
      toggle("random", "random order", "Another sample of pictures with each press"),
      toggle("shuffled", "shuffle sentences", "Each caption's sentences in a drawn order"),
      toggle("blind", "blind", "Hide who wrote what, in a drawn order; r reveals"),
      counts),
    pages, list, below,
  );

  /** A filter's field; a select of what is there, or the search. */
  function filters() {
    const names = (column) => [...new Set(sets.map((one) => one[column]))];
    const spoken = new Set(sets.flatMap((one) => Object.keys(one.gates)));
    const choices = {
      kind: names("kind"), source: names("source"), status: statuses, gate: [...spoken].sort(), mark: marks,
    };
    const selects = Object.entries(choices).filter(([, values]) => values.length).map(([name, values]) =>
      el("select", { "aria-label": name, value: state[name] ?? "", on: { change: (event) => set(name, event.target.value) } },
        el("option", { value: "" }, `any ${name}`),
        values.map((value) => el("option", { value }, value.replaceAll("_", " ")))));
    const selection = facts.selections.length > 0 && el("select", {
      "aria-label": "selection", value: state.selection ?? "", on: { change: (event) => set("selection", event.target.value) },
    }, el("option", { value: "" }, "all pictures"), facts.selections.map(({ name }) => el("option", { value: name }, name)));
    const search = el("input", {
      type: "search", placeholder: "in the text (/)", "aria-label": "Search in the text", value: state.text ?? "",
      id: "search-text", on: { change: (event) => set("text", event.target.value) },
    });
    return [search, selects, selection];
  }

  function toggle(name, label, title) {
    const button = el("button", { type: "button", title, "aria-pressed": String(Boolean(state[name])) }, label);
    button.addEventListener("click", () => {
      const again = name === "random" && state[name];
      const value = state[name] && !again ? "" : String(1 + Math.floor(Math.random() * 1e6));
      button.setAttribute("aria-pressed", String(Boolean(value)));
      if (name === "blind") revealed = false;
      if (name === "random") set(name, value);
      else { state[name] = value; draw(); }
    });
    return button;
  }

  /** The sets that stand side by side: those asked for, those of the filter, or the first ones. */
  function shownSets() {
    if (state.sets) return state.sets.split(",");
    const fits = (one) => (!state.kind || one.kind === state.kind) && (!state.source || one.source === state.source);
    const derived = (one) => one.source.startsWith("derived-");
    const ordered = [...sets].sort((a, b) => rank(a) - rank(b) || derived(a) - derived(b));
    const matching = state.kind || state.source ? ordered.filter(fits) : [];
    return [...new Set([...matching, ...ordered])].slice(0, Math.max(MOST_SETS, matching.length)).map(nameOf);
  }

  function setsMenu() {
    const boxes = () => sets.map((one) => el("label", {},
      el("input", {
        type: "checkbox", checked: shownSets().includes(nameOf(one)),
        on: { change: (event) => {
          const now = new Set(shownSets());
          if (event.target.checked) now.add(nameOf(one));
          else now.delete(nameOf(one));
          state.sets = [...now].join(",");
          draw();
        } },
      }),
      el("span", {}, one.kind, " ", el("small", { class: "soft" }, one.source === one.kind ? "" : one.source, ` ${number(one.ok)} of ${number(one.rows)}`))));
    const choices = el("div", { class: "choices" });
    return el("details", { class: "menu", on: { toggle: () => fill(choices, boxes()) } }, el("summary", {}, "side by side"), choices);
  }

  async function draw() {
    const filters = FILTERS.filter((name) => state[name]).map((name) => [name, state[name]]);
    const asked = new URLSearchParams(filters.length ? [...filters, ["now", opened]] : []).toString();
    const { order, total } = await get("/api/order", {
      captions: asked, selection: state.selection, random: state.random,
    });
    let start = Math.min(Number(state.start) || 0, Math.max(0, Math.floor((total - 1) / SIZE) * SIZE));
    remember("captions", { ...state, start: start || "" });
    const { rows } = await get("/api/captions", {
      order, start: String(start), count: SIZE, sets: shownSets().join(","), shuffled: state.shuffled, blind: state.blind,
    });
    fill(list, rows.map((row, place) => pictureRow(row, {
      captions: asked, selection: state.selection, random: state.random, at: String(start + place),
    })));
    const go = (to) => { state.start = String(to); draw().then(() => main.scrollIntoView()); };
    const place = { start, size: SIZE, total, what: "pictures", go };
    pager(below, place, true);
    onKeys({
      ...pager(pages, place),
      ...markingKeys(main),
      "/": ["search in the text", () => document.getElementById("search-text").focus()],
      r: ["who wrote what, when looking blind", () => { revealed = !revealed; draw(); }],
    });
    await countMarks();
  }

  function pictureRow(row, way) {
    const address = link(`sample/${row.key}`, way);
    const blind = Boolean(state.blind) && !revealed;
    return el("section", { class: "caption-row" },
      el("a", { class: "thumb", href: address }, el("span", { class: "frame" }, thumbnail(row, 160))),
      el("div", { class: "cells columns", style: { "--columns": shownSets().length } }, slots(row, blind, address)));
  }

  /** The captions of a picture: a column a set, or in the drawn order where one looks blind. */
  function slots(row, blind, address) {
    const cell = (caption, name = null) => captionCell(
      Object.assign(blind ? unnamed(caption) : caption, { key: row.key }),
      {
        name, meanings: gates,
        rest: () => { location.hash = address; },
        whole: () => wholeText(row.key, caption),
      },
    );
    if (blind) return row.captions.map((caption, place) => cell(caption, String.fromCharCode(65 + place)));
    return shownSets().map((set) => {
      const own = row.captions.filter((caption) => nameOf(caption) === set);
      if (own.length) return el("div", { class: "slot" }, own.map((caption) => cell(caption)));
      return el("div", { class: "slot none" }, `no ${set.slice(set.indexOf("/") + 1)}`);
    });
  }

  async function countMarks() {
    const found = await get("/api/marks");
    const told = marks.filter((name) => found[name]).map((name) => `${number(found[name])} ${name}`);
    fill(counts, told.length ? [`${told.join(", ")} · `, el("a", { href: "/api/marks.jsonl", download: true }, "as JSONL")] : "no marks yet");
  }

  document.addEventListener("marked", countMarks);
  await draw();
  return () => document.removeEventListener("marked", countMarks);
}

const nameOf = (one) => `${one.source}/${one.kind}`;
const ORDER = ["alt", "short", "descriptive"];
const rank = (one) => (ORDER.includes(one.kind) ? ORDER.indexOf(one.kind) : ORDER.length);

/** The caption without what tells who wrote it; marking still needs its own name. */
function unnamed(caption) {
  const hidden = { ...caption };
  for (const name of ["flags", "detail", "alt_clip_similarity"]) hidden[name] = null;
  return hidden;
}

async function wholeText(key, caption) {
  if (caption.characters === null && !location.hash.includes("shuffled=")) return caption.text;
  const { captions } = await get(`/api/sample/${encodeURIComponent(key)}`);
  const found = captions.find((one) => one.source === caption.source && one.kind === caption.kind && one.sample_index === caption.sample_index);
  return found?.text ?? found?.raw_text ?? "";
}
