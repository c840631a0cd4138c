// Pictures by a text, like a stored one, or like a picture file that is chosen, dropped or pasted.

import { about, get, link, post } from "../api.js";
import { el, fill, notice, number } from "../dom.js";
import { thumbnail, windowedGrid } from "../grid.js";
import { onKeys } from "../keys.js";

const EDGE = 160; // px of a picture
const COUNT = 300;
const AGAIN = 700; // ms between two questions whether the model is loaded
const LARGEST = 20_000_000; // bytes of a file; the dataset's own limit may be smaller

export async function show(main, params) {
  const [facts, models] = await Promise.all([about(), get("/api/search/models")]);
  const state = Object.fromEntries(["text", "like", "selection", "where", "clip"]
    .map((name) => [name, params.get(name) ?? ""]));
  const asked = { grid: null, left: false, address: null };
  const box = el("input", {
    type: "search", id: "text", value: state.text, placeholder: "a red bicycle", autocomplete: "off",
    "aria-label": "What the picture shows",
  });
  const file = el("input", { type: "file", id: "file", accept: "image/*", class: "unseen",
    on: { change: () => file.files.length && byFile(file.files[0]) } });
  const of = el("div", { class: "asked" });
  const told = el("output", { class: "count" });
  const place = el("div", { class: "grid-place" });
  const go = (change) => {
    const next = link("search", { ...state, ...change });
    if (next === location.hash) asking(byWord);
    else location.hash = next;
  };
  const form = el("form", { class: "bar", role: "search", on: { submit: (event) => {
    event.preventDefault();
    if (box.value.trim()) go({ text: box.value.trim(), like: "" });
  } } },
  el("span", { class: "field wide" }, box, el("button", { class: "main" }, "Search")),
  el("span", { class: "field" }, file, el("label", { for: "file", class: "button" }, "By a picture…")),
  choice("selection", "Among", [["", "all stored"], ...facts.selections.map(({ name }) => [name, name])]),
  choice("clip", "CLIP", models.labels.map((label) => [label, label || "the main one"])), told);
  fill(main, form, of, place);

  function choice(name, label, options) {
    if (options.length < 2) return null;
    return el("span", { class: "field" }, el("label", { for: name }, label),
      el("select", { id: name, value: state[name], on: { change: ({ target }) => go({ [name]: target.value }) } },
        options.map(([value, text]) => el("option", { value }, text))));
  }

  /** Ask until nothing has to be waited for, and say what it is meanwhile. */
  async function asking(question) {
    asked.grid?.destroy();
    asked.grid = null;
    fill(told, "");
    try {
      for (;;) {
        const found = await question();
        if (asked.left) return;
        if (!found.waiting) return shown(found);
        fill(place, el("p", { class: "empty", role: "status" }, `${found.waiting} …`));
        await new Promise((done) => setTimeout(done, AGAIN));
        if (asked.left) return;
      }
    } catch (error) {
      if (asked.left) return;
      fill(place, el("p", { class: "empty" }, "Nothing was found."));
      throw error;
    }
  }

  const byWord = () => get("/api/search", { ...state, count: COUNT });

  async function byFile(chosen) {
    if (chosen.size > LARGEST) return notice(`A picture to search by has at most ${number(LARGEST)} bytes.`);
    const picture = base64(new Uint8Array(await chosen.arrayBuffer()));
    if (asked.address) URL.revokeObjectURL(asked.address);
    asked.address = URL.createObjectURL(chosen);
    box.value = "";
    fill(of, el("img", { src: asked.address, alt: "the picture that is searched by" }),
      el("span", {}, `Like ${chosen.name}`));
    const { selection, where, clip } = state;
    return asking(async () => {
      const ready = await get("/api/search/models", { load: true, clip });
      return ready.waiting ? ready : post("/api/search", { picture, selection, where, clip });
    });
  }

  function shown({ rows, among, note }) {
    fill(told, `${number(rows.length)} nearest of ${number(among)}`);
    fill(place);
    if (state.text) fill(of, note);
    if (!rows.length) return fill(place, el("p", { class: "empty" }, "No picture passes."));
    asked.grid = windowedGrid(place, {
      total: rows.length, edge: EDGE, lines: 46, label: "Pictures, the nearest first",
      rows: async (start, count) => rows.slice(start, start + count),
      cell: (row) => cell(row, state, (key) => go({ like: key, text: "" })),
      open: (row) => { location.hash = link(`sample/${row.key}`); },
    });
    if (document.activeElement !== box) asked.grid.box.focus({ preventScroll: true });
    return undefined;
  }

  main.addEventListener("dragover", (event) => {
    event.preventDefault();
    main.classList.add("dropping");
  });
  main.addEventListener("dragleave", (event) => {
    if (!main.contains(event.relatedTarget)) main.classList.remove("dropping");
  });
  main.addEventListener("drop", (event) => {
    event.preventDefault();
    main.classList.remove("dropping");
    if (event.dataTransfer.files.length) byFile(event.dataTransfer.files[0]);
  });
  const pasted = (event) => event.clipboardData.files.length && byFile(event.clipboardData.files[0]);
  document.addEventListener("paste", pasted);
  onKeys({
    "/": ["write what to search for", () => box.select()],
    "l": ["pictures like the one with the ring", () => {
      const row = asked.grid?.row(asked.grid.index());
      if (row) go({ like: row.key, text: "" });
    }],
    "o": ["search by a picture file", () => file.click()],
    "g": ["go to the grid", () => asked.grid?.box.focus()],
  });

  if (state.like) fill(of, thumbnail({ key: state.like, text: "the picture that is searched by" }, 96),
    el("span", {}, "Like ", el("a", { href: link(`sample/${state.like}`) }, "this picture")));
  if (state.text || state.like) asking(byWord);
  else {
    fill(place, el("p", { class: "empty" },
      "Write what a picture shows, or drop a picture here to find others like it."));
    box.focus();
  }
  return () => {
    asked.left = true;
    asked.grid?.destroy();
    document.removeEventListener("paste", pasted);
    if (asked.address) URL.revokeObjectURL(asked.address);
  };
}

function cell(row, state, like) {
  const copy = row.copy_of && el("span", { class: "badge", title: `of ${row.copy_of}` },
    row.copy_of === state.like ? "its copy" : "a copy");
  return el("div", { class: "shot" },
    el("a", { class: "frame", href: link(`sample/${row.key}`), tabindex: "-1", title: row.text || "" },
      thumbnail(row, EDGE), copy),
    el("div", { class: "told" }, number(row.values.similarity, 3)),
    el("div", { class: "told" }, el("button", {
      type: "button", class: "like", tabindex: "-1", title: "Pictures like this one (l)",
      on: { click: () => like(row.key) },
    }, "like this")));
}

/** Bytes in base64; a call of String.fromCharCode takes some thousand at most. */
function base64(bytes) {
  let letters = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    letters += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(letters);
}
