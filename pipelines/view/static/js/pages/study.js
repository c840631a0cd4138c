// A study: the answer in words, then its arms by prompt, all drawn from the same noise.

import { get, remember } from "../api.js";
import { el, fill } from "../dom.js";
import { onKeys } from "../keys.js";
import { pager } from "../record/pager.js";
import { answer } from "../runs/answer.js";
import { opened, promptRow } from "../runs/cells.js";
import { named } from "../mark.js";

const SIZE = 20; // prompts a page
const MOST_ARMS = 8; // shown unasked
const FILTERS = ["form", "wording", "category", "held_out", "text"];

export async function show(main, params) {
  const study = await get("/api/study");
  const state = Object.fromEntries(params);
  const arms = study.arms.map(({ name }) => name);
  const [first = arms[0], second = arms[1]] = study.pairs[0] ?? [];
  state.a ??= first;
  state.b ??= second ?? "";
  state.metric ??= study.decided.name || study.metrics[0]?.name;
  state.form ??= study.primary.form ?? "";
  const table = el("table", { class: "by-prompt" });
  const [above, below] = [el("div", { class: "pager" }), el("div", { class: "pager" })];
  const dialog = el("dialog", { class: "one-prompt" });
  const tools = el("form", { class: "bar tools", on: { submit: (event) => event.preventDefault() } });
  fill(main, answer(study), el("h2", { id: "prompts" }, "Arms by prompt"),
    el("p", { class: "note" }, "Every arm draws a prompt from the same noise. Below a picture stands its score and, behind ⌀, the arm’s mean over seeds and noises."),
    tools, above, el("div", { class: "scroll" }, table), below, dialog);

  const change = (name, value) => {
    state[name] = value;
    state.start = "0";
    if (name === "form") state.wording = "";
    drawTools();
    return draw();
  };

  function shownArms() {
    const asked = (state.arms ?? "").split("\n").filter((arm) => arms.includes(arm));
    return asked.length ? asked : arms.slice(0, MOST_ARMS);
  }

  function choice(name, label, options, any = null) {
    const listed = options.map((one) => (Array.isArray(one) ? one : [one, one]));
    return el("span", { class: "field" },
      el("label", { for: `of-${name}` }, label),
      el("select", { id: `of-${name}`, "aria-label": label || "arm", value: state[name] ?? "", on: { change: (event) => change(name, event.target.value) } },
        any && el("option", { value: "" }, any),
        listed.map(([value, text]) => el("option", { value }, text))));
  }

  function drawTools() {
    const focused = document.activeElement?.id;
    const wordings = state.form ? study.forms[state.form] ?? [] : [...new Set(Object.values(study.forms).flat())];
    const seeds = Math.max(...study.arms.map(({ seeds }) => seeds.length), 1);
    const other = study.arms.filter(({ seeds }) => String(seeds) !== String(study.arms[0].seeds));
    const seedName = (index) => [study.arms[0].seeds[index], ...other.map(({ name, seeds }) => seeds[index] !== undefined && `${name}: ${seeds[index]}`)]
      .filter((part) => part !== undefined && part !== false).join("; ");
    const sorted = state.sort === "difference";
    fill(tools,
      el("input", { type: "search", id: "of-text", placeholder: "in the prompt (/)", "aria-label": "Search in the prompts", value: state.text ?? "",
        on: { change: (event) => change("text", event.target.value) } }),
      choice("form", "prompts", Object.keys(study.forms), "any form"),
      wordings.length > 1 && choice("wording", "wording", wordings, "any"),
      study.categories.length > 1 && choice("category", "of", study.categories, "everything"),
      study.held_out > 0 && choice("held_out", "pairs", [["1", "held out"], ["0", "seen in training"]], "all"),
      choice("metric", "score", study.metrics.map(({ name, label }) => [name, label])),
      seeds > 1 && choice("seed", "seed", [...Array(seeds).keys()].map((index) => [String(index || ""), seedName(index)])),
      study.noises.length > 1 && choice("noise", "noise", study.noises.map((noise) => [String(noise || ""), String(noise)])),
      arms.length > 1 && el("span", { class: "field" },
        el("button", { type: "button", id: "by-difference", "aria-pressed": String(sorted), on: { click: () => change("sort", sorted ? "" : "difference") } }, "sort by difference"),
        sorted && [choice("a", "", arms), "−", choice("b", "", arms),
          el("button", { type: "button", id: "up", title: "Turn the order (d)", on: { click: () => change("up", state.up ? "" : "1") } }, state.up ? "smallest first" : "largest first")]),
      arms.length > 2 && armsMenu());
    if (focused) document.getElementById(focused)?.focus();
  }

  function armsMenu() {
    const boxes = arms.map((arm) => el("label", {},
      el("input", { type: "checkbox", checked: shownArms().includes(arm), on: { change: (event) => {
        const now = new Set(shownArms());
        if (event.target.checked) now.add(arm);
        else now.delete(arm);
        state.arms = arms.filter((one) => now.has(one)).join("\n");
        draw();
      } } }), named(arm, study.marks)));
    return el("details", { class: "menu" }, el("summary", {}, "arms"), el("div", { class: "choices" }, boxes));
  }

  let turn = 0;
  async function draw() {
    const mine = (turn += 1);
    const sorted = state.sort === "difference";
    const start = Number(state.start) || 0;
    const query = new URLSearchParams(shownArms().map((arm) => ["arm", arm]));
    for (const name of [...FILTERS, "metric", "seed", "noise", "a", "b", "up", "sort"]) if (state[name]) query.set(name, state[name]);
    query.set("start", String(start));
    query.set("count", String(SIZE));
    const { total, rows } = await get(`/api/study/prompts?${query}`);
    if (mine !== turn) return;
    const told = { ...state, form: state.form || "any" };
    remember("study", { ...told, start: start || "" });
    const view = {
      metric: study.metrics.find(({ name }) => name === state.metric), metrics: study.metrics, marks: study.marks, sorted,
      meant: rows.some((row) => row.meant), open: (row) => opened(dialog, row, view),
    };
    fill(table,
      el("thead", {}, el("tr", {},
        el("th", { scope: "col" }, "prompt"), view.meant && el("th", { scope: "col" }, "meant"),
        (rows[0]?.cells ?? []).map((cell) => el("th", { scope: "col" }, named(cell.arm, study.marks),
          cell.seed !== null && el("span", { class: "note" }, `seed ${cell.seed}`))))),
      el("tbody", {}, rows.map((row) => promptRow(row, view))));
    const go = (to) => { state.start = String(to); draw().then(() => document.getElementById("prompts")?.scrollIntoView()); };
    const place = { start, size: SIZE, total, what: "prompts", go };
    pager(below, place, true);
    onKeys({
      ...pager(above, place),
      "/": ["search in the prompts", () => document.getElementById("of-text").focus()],
      s: ["next seed", () => next("seed", Math.max(...study.arms.map(({ seeds }) => seeds.length)))],
      o: ["next noise", () => next("noise", study.noises.length)],
      d: ["turn the order of differences", () => sorted && change("up", state.up ? "" : "1")],
    });
  }

  const next = (name, count) => change(name, String((Number(state[name] || 0) + 1) % count || ""));

  if (state.form === "any") state.form = "";
  drawTools();
  await draw();
}
