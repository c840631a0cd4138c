// A grid of equal cells that holds only what is in sight, smooth at a million rows.
//
// Browsers limit how tall an element may be (about 17 million px). Beyond TALLEST the scroll bar is
// proportional: `offset` is what the true height has more above the view than the bar shows. Small
// steps move by true pixels; a jump of more than a view, as by dragging the bar, sets the offset.

import { pictureOf } from "./api.js";
import { el } from "./dom.js";

const TALLEST = 6_000_000; // px
const BLOCK = 120; // rows that are asked for at once
const KEPT_BLOCKS = 40;
const ROWS_AROUND = 2; // lines of cells above and below the view

/**
 * @param {HTMLElement} container  gets the scrolling box; its height is the page's affair (CSS)
 * @param options
 *   total      number of rows
 *   edge       smallest width of a cell in px
 *   lines      px below the picture, for what the cell tells
 *   rows       async (start, count) => rows
 *   cell       (row, index) => Node, of which the first child is as high as it is wide
 *   open       (row, index) => void, on Enter and on a click that no link takes
 *   start      the row to begin with
 *   moved      (index) => void, when another row has the focus
 *   label      of the list, for a screen reader
 * @returns {refresh(total), focus(index), index(), row(index), columns(), box, destroy()}
 */
export function windowedGrid(container, options) {
  const { edge, rows, cell, open, lines = 28, gap = 10, label = "Pictures" } = options;
  const canvas = el("div", { class: "grid-canvas" });
  const box = el("div", {
    class: "grid-box", tabindex: "0", role: "listbox", "aria-label": label,
  }, canvas);
  container.append(box);

  let total = options.total;
  let columns = 1, width = edge, height = edge + lines; // of a cell, px
  let offset = 0, last = 0;
  let focused = Math.min(options.start ?? 0, Math.max(0, total - 1));
  let version = 0, ended = false, waiting = 0, marked;
  const cells = new Map(); // index -> element
  const places = new WeakMap(); // element -> where it stands
  const told = new WeakMap(); // element -> its row, as text
  const blocks = new Map(); // number of a block -> rows, or a promise of them

  const trueHeight = () => Math.ceil(total / columns) * (height + gap) + gap;
  const barHeight = () => Math.min(trueHeight(), TALLEST);
  const topOf = (index) => gap + Math.floor(index / columns) * (height + gap);
  const seen = () => box.scrollTop + offset;

  function measure() {
    const inner = box.clientWidth - gap;
    columns = Math.max(1, Math.floor(inner / (edge + gap)));
    width = Math.floor(inner / columns) - gap;
    height = width + lines;
    canvas.style.height = `${barHeight()}px`;
    canvas.style.setProperty("--cell-width", `${width}px`);
    canvas.style.setProperty("--cell-height", `${height}px`);
  }

  /** Bring the true pixel `top` to the upper edge of the view. */
  function scrollToTop(top) {
    const most = Math.max(0, trueHeight() - box.clientHeight);
    const wanted = Math.max(0, Math.min(top, most));
    const bar = barHeight() - box.clientHeight;
    const scroll = most > 0 && bar < most ? Math.round((wanted / most) * bar) : wanted;
    offset = Math.round(wanted - scroll);
    box.scrollTop = scroll;
    last = box.scrollTop;
    draw();
  }

  function scrolled() {
    const now = box.scrollTop;
    const most = trueHeight() - box.clientHeight, bar = barHeight() - box.clientHeight;
    if (bar < most) {
      const jumped = Math.abs(now - last) > box.clientHeight;
      const atEnd = now <= 0 || now >= bar - 1;
      if (jumped || atEnd) offset = Math.round((now / bar) * most) - now;
      else if (now + offset > most || now + offset < 0) offset = Math.max(-now, Math.min(offset, most - now));
    }
    last = now;
    draw();
  }

  function draw() {
    if (ended || !box.clientHeight) return;
    const first = Math.max(0, Math.floor(seen() / (height + gap)) - ROWS_AROUND) * columns;
    const lineCount = Math.ceil(box.clientHeight / (height + gap)) + 2 * ROWS_AROUND + 1;
    const end = Math.min(total, first + lineCount * columns);
    for (const [index, node] of cells) {
      if (index < first || index >= end) {
        for (const picture of node.querySelectorAll("img")) picture.removeAttribute("src");
        node.remove();
        cells.delete(index);
      }
    }
    let missing = false;
    for (let index = first; index < end; index += 1) {
      const row = rowAt(index);
      let node = cells.get(index);
      // What is not known anew yet stays as it was.
      if (node && row !== undefined && told.get(node) !== JSON.stringify(row)) {
        node.remove();
        node = undefined;
      }
      if (!node) {
        node = wrapped(row, index);
        cells.set(index, node);
        canvas.append(node);
      }
      const left = gap + (index % columns) * (width + gap);
      const at = `${left}px, ${topOf(index) - offset}px`;
      if (places.get(node) !== at) node.style.transform = `translate(${at})`;
      places.set(node, at);
      missing ||= row === undefined;
    }
    if (missing) fetchSoon(first, end);
    mark();
  }

  function wrapped(row, index) {
    const about = {
      class: row === undefined ? "grid-cell waiting" : "grid-cell", id: `cell-${index}`, role: "option",
      "aria-posinset": index + 1, "aria-setsize": total, dataset: { index },
    };
    const node = el("div", about, row === undefined ? el("div", { class: "frame" }) : cell(row, index));
    told.set(node, JSON.stringify(row));
    return node;
  }

  function rowAt(index) {
    const block = blocks.get(Math.floor(index / BLOCK));
    return Array.isArray(block) ? block[index % BLOCK] : undefined;
  }

  /** Ask for what is in sight when the scrolling has rested for a moment. */
  function fetchSoon(first, end) {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      for (let number = Math.floor(first / BLOCK); number * BLOCK < end; number += 1) ask(number);
    }, blocks.size ? 60 : 0);
  }

  async function ask(number) {
    if (blocks.has(number) || ended) return;
    const mine = version;
    const start = number * BLOCK;
    blocks.set(number, true);
    try {
      const found = await rows(start, Math.min(BLOCK, total - start));
      if (mine !== version || ended) return;
      blocks.set(number, found);
      const kept = [...blocks.keys()];
      for (const old of kept.slice(0, Math.max(0, kept.length - KEPT_BLOCKS))) blocks.delete(old);
      draw();
    } catch (error) {
      if (mine === version) blocks.delete(number);
      if (!ended) throw error;
    }
  }

  function mark() {
    const now = cells.get(focused);
    if (marked === now) return;
    for (const [node, is] of [[marked, false], [now, true]]) {
      node?.classList.toggle("focused", is);
      node?.setAttribute("aria-selected", String(is));
    }
    marked = now;
    if (now) box.setAttribute("aria-activedescendant", `cell-${focused}`);
    else box.removeAttribute("aria-activedescendant");
  }

  /** Put the focus ring on a row, and bring the row into view. */
  function focus(index) {
    if (!total) return;
    focused = Math.max(0, Math.min(total - 1, index));
    const top = topOf(focused);
    if (top - gap < seen()) scrollToTop(top - gap);
    else if (top + height + gap > seen() + box.clientHeight) scrollToTop(top + height + gap - box.clientHeight);
    else mark();
    options.moved?.(focused);
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(box.clientHeight / (height + gap))) * columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page,
      PageDown: page, Home: -Infinity, End: Infinity,
    };
    if (event.key in steps) {
      event.preventDefault();
      const wanted = focused + steps[event.key];
      // Up and down keep the column; at the edge they stay.
      const vertical = Math.abs(steps[event.key]) === columns && event.key.startsWith("Arrow");
      if (!vertical || (wanted >= 0 && wanted < total)) focus(wanted);
    } else if (event.key === "Enter") {
      const row = rowAt(focused);
      if (row !== undefined) open(row, focused);
    } else return;
    event.stopPropagation();
  }

  function clicked(event) {
    const node = event.target.closest(".grid-cell");
    if (!node) return;
    focused = Number(node.dataset.index);
    mark();
    options.moved?.(focused);
    const row = rowAt(focused);
    if (row !== undefined && !event.target.closest("a, button, input")) open(row, focused);
  }

  function resized() {
    if (!box.clientWidth) return;
    const first = Math.floor(seen() / (height + gap)) * columns;
    const before = columns;
    measure();
    scrollToTop(before === columns ? seen() : topOf(Math.max(0, first)) - gap);
  }

  box.addEventListener("scroll", scrolled, { passive: true });
  box.addEventListener("keydown", pressed);
  box.addEventListener("click", clicked);
  const observer = new ResizeObserver(resized);
  measure();
  observer.observe(box);
  if (focused) focus(focused);
  else draw();

  return {
    /** The rows, or their number, are others. */
    refresh(count) {
      version += 1;
      total = count;
      blocks.clear();
      focused = Math.max(0, Math.min(focused, total - 1));
      measure();
      scrollToTop(Math.min(seen(), trueHeight()));
    },
    focus,
    index: () => focused,
    columns: () => columns,
    row: rowAt,
    box,
    destroy() {
      ended = true;
      clearTimeout(waiting);
      observer.disconnect();
      box.remove();
    },
  };
}

/** The picture of a row; its text for those who do not see it. One that cannot be shown says so. */
export function thumbnail(row, edge = 160) {
  const sharp = edge * (window.devicePixelRatio || 1) > 200 ? 320 : 160;
  const picture = el("img", {
    src: pictureOf(row.key, sharp), alt: row.text || "without a text",
    decoding: "async", draggable: "false",
  });
  picture.addEventListener("error", () => {
    if (picture.hasAttribute("src")) picture.replaceWith(el("span", { class: "unreadable" }, "cannot be shown"));
  });
  return picture;
}
