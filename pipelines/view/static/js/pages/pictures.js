// All pictures in an order: sorted by a column, of a selection, as dense as wanted.

import { about, columnOf, get, link, remember } from "../api.js";
import { el, fill, number, shown } from "../dom.js";
import { thumbnail, windowedGrid } from "../grid.js";
import { onKeys } from "../keys.js";

const DENSITIES = { small: 96, medium: 160, large: 280 };
const LINE = 19; // px of a line under a picture
const LOOKED = 5000; // ms between two looks whether the tables have changed

export async function show(main, params) {
  const facts = await about();
  const state = {
    sort: params.get("sort") ?? "",
    down: params.get("down") === "1",
    selection: params.get("selection") ?? "",
    random: params.get("random") ?? "",
    where: params.get("where") ?? "",
    side: params.get("side") ?? "",
    show: listed(params.get("show") ?? "").filter((name) => columnOf(facts, name)),
    keep_duplicates: params.get("keep_duplicates") === "1",
    size: Object.hasOwn(DENSITIES, params.get("size")) ? params.get("size") : "medium",
    at: Math.max(0, Math.trunc(Number(params.get("at")))) || 0,
  };
  if (!params.has("show") && columnOf(facts, state.sort)) state.show = [state.sort];

  const place = el("div", { class: "grid-place" });
  const count = el("output");
  const go = (change) => { location.hash = link("pictures", written({ ...state, at: 0, ...change })); };
  const written = (of) => ({ ...of, show: list(of.show), size: of.size === "medium" ? "" : of.size,
    at: of.at || "" });

  fill(main, el("div", { class: "bar" },
    sorting(facts, state, go), selecting(facts, state, go), showing(facts, state, go),
    density(state, go),
    el("span", { class: "count" }, count, facts.failed > 0 && [" · ",
      el("a", { href: link("failed") }, `${number(facts.failed)} failed`)])), ruled(state, go), place);

  const way = { sort: state.sort, down: state.down, selection: state.selection, random: state.random,
    where: state.where, side: state.side, keep_duplicates: state.keep_duplicates };
  const order = () => get("/api/order", way);
  let { order: name, total, version } = await order();
  const tell = () => fill(count, `${number(total)} ${total === 1 ? "picture" : "pictures"}`);
  tell();
  const changed = async () => {
    const now = await order();
    if (now.version === version) return;
    if (!total && now.total) return window.dispatchEvent(new HashChangeEvent("hashchange"));
    ({ total, version } = now);
    tell();
    return grid?.refresh(total);
  };
  const follow = following(changed);
  let grid = null;
  if (!total) {
    place.append(el("p", { class: "empty" }, state.selection || state.where
      ? "No picture is among these."
      : "No picture is stored yet; they appear here as `caplab curate` stores them."));
    return follow;
  }
  const edge = DENSITIES[state.size];
  const address = (row, index) => link(`sample/${row.key}`, { ...way, at: String(index) });
  grid = windowedGrid(place, {
    total, edge, lines: 8 + LINE * state.show.length, start: state.at,
    async rows(start, count) {
      const asked = () => get("/api/window", { order: name, start: start || "0", count,
        show: list(state.show) });
      const found = await asked().catch(async (error) => {
        if (error.status !== 409) throw error; // the server was started anew
        ({ order: name } = await order());
        return asked();
      });
      if (found.total !== total) changed(); // before one looked
      return found.rows;
    },
    cell: (row, index) => cell(facts, state, row, edge, address(row, index)),
    open: (row, index) => { location.hash = address(row, index); },
    moved(index) {
      state.at = index;
      remember("pictures", written(state));
    },
  });
  grid.box.focus({ preventScroll: true });
  onKeys({
    "s": ["choose the column to sort by", () => main.querySelector("#sort").focus()],
    "d": ["turn the order", () => go({ down: !state.down })],
    "r": ["another random order", () => go({ random: Number(state.random || 0) + 1, sort: "", down: false })],
    "-": ["more, smaller pictures", () => go({ size: next(state.size, -1), at: state.at })],
    "+": ["fewer, larger pictures", () => go({ size: next(state.size, 1), at: state.at })],
    "g": ["go to the grid", () => grid.box.focus()],
  });
  return () => {
    follow();
    grid.destroy();
  };
}

/**
 * Look now and then whether the tables have changed, while the page is seen: more seldom where
 * that takes long. Returns what ends it.
 */
function following(look) {
  let waiting = 0, ended = false;
  async function turn() {
    clearTimeout(waiting);
    const begun = performance.now();
    // That a server ended is told where somebody asks for something.
    if (!document.hidden) await look().catch(() => {});
    if (!ended) waiting = setTimeout(turn, Math.max(LOOKED, 20 * (performance.now() - begun)));
  }
  waiting = setTimeout(turn, LOOKED);
  document.addEventListener("visibilitychange", turn);
  return () => {
    ended = true;
    clearTimeout(waiting);
    document.removeEventListener("visibilitychange", turn);
  };
}

// Columns in one parameter; a name may hold a comma.
const list = (names) => names.map(encodeURIComponent).join(",");
const listed = (text) => text.split(",").map((part) => {
  try { return decodeURIComponent(part); } catch { return part; }
});

function next(size, step) {
  const names = Object.keys(DENSITIES);
  return names[Math.max(0, Math.min(names.length - 1, names.indexOf(size) + step))];
}

function cell(facts, state, row, edge, href) {
  return el("a", { class: "shot", href, tabindex: "-1", title: row.text || "" },
    el("div", { class: "frame" }, thumbnail(row, edge)),
    state.show.map((name) => el("div", { class: "told" },
      state.show.length > 1 && el("span", { class: "muted" }, `${columnOf(facts, name).label} `),
      shown(row.values[name], columnOf(facts, name)))));
}

const GROUPS = { number: "Numbers", bool: "Yes or no", text: "Texts", time: "Times" };
const WAYS = { number: ["low first", "high first"], bool: ["no first", "yes first"],
  text: ["A first", "Z first"], time: ["early first", "late first"] };
const RANDOM = " random"; // no column's name begins so

function sorting(facts, state, go) {
  const columns = facts.columns.filter(({ name }) => name !== "key" && name !== "row");
  const type = columnOf(facts, state.sort)?.type;
  const chosen = ({ target: { value } }) => (value === RANDOM
    ? go({ sort: "", random: 1, down: false })
    : go({ sort: value, random: "", down: columnOf(facts, value)?.type === "number",
      show: withSort(state, value) }));
  const ways = WAYS[type] ?? ["first to last", "last to first"];
  return el("span", { class: "field" }, el("label", { for: "sort" }, "Sort"),
    el("select", { id: "sort", value: state.random ? RANDOM : state.sort, on: { change: chosen } },
      el("option", { value: "" }, "as in the input"), el("option", { value: RANDOM }, "at random"),
      Object.entries(GROUPS).map(([kind, label]) => {
        const these = columns.filter((column) => column.type === kind);
        return these.length > 0 && el("optgroup", { label }, these.map((column) =>
          el("option", { value: column.name }, column.label)));
      })),
    state.random
      ? el("button", { type: "button", id: "again", title: "Another random order (r)",
        on: { click: () => go({ random: Number(state.random) + 1 }) } }, "↻ again")
      : el("button", { type: "button", id: "down", "aria-pressed": state.down ? "true" : "false",
        title: "Turn the order (d)", on: { click: () => go({ down: !state.down }) } },
      state.down ? `↓ ${ways[1]}` : `↑ ${ways[0]}`));
}

/** The rule that chooses these pictures, where one does. */
function ruled(state, go) {
  if (!state.where) return null;
  return el("div", { class: "bar" },
    el("span", {}, state.side === "dropped" ? "Dropped by " : state.side === "kept" ? "Kept by " : "Rule ",
      el("a", { href: link("rule", { where: state.where, keep: state.keep_duplicates }) },
        el("code", {}, state.where))),
    el("button", { type: "button", on: { click: () => go({ where: "", side: "", keep_duplicates: false }) } }, "Show all"));
}

/** What one sorts by is shown, in place of what was shown for the sake of the last order. */
function withSort(state, sort) {
  const others = state.show.filter((name) => name !== state.sort && name !== sort);
  return sort ? [sort, ...others] : others;
}

function selecting(facts, state, go) {
  if (!facts.selections.length) return null;
  return el("span", { class: "field" }, el("label", { for: "selection" }, "Of"),
    el("select", { id: "selection", value: state.selection,
      on: { change: ({ target }) => go({ selection: target.value }) } },
    el("option", { value: "" }, "all stored"),
    facts.selections.map(({ name, selected }) =>
      el("option", { value: name }, selected === null ? name : `${name} (${number(selected)})`))));
}

function showing(facts, state, go) {
  const choose = ({ target }) => {
    const others = state.show.filter((name) => name !== target.value);
    go({ show: target.checked ? [...others, target.value] : others, at: state.at });
  };
  return el("details", { class: "menu" },
    el("summary", {}, state.show.length ? `Shown: ${state.show.length}` : "Show values"),
    el("div", { class: "choices" }, facts.columns.filter(({ name }) => name !== "key").map((column) =>
      el("label", {}, el("input", { type: "checkbox", value: column.name,
        checked: state.show.includes(column.name), on: { change: choose } }), column.label))));
}

function density(state, go) {
  return el("span", { class: "field segmented", role: "group", "aria-label": "Size of the pictures" },
    Object.keys(DENSITIES).map((size) => el("button", {
      type: "button", "aria-pressed": state.size === size ? "true" : "false",
      on: { click: () => go({ size, at: state.at }) },
    }, size)));
}
