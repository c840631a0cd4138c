// The rule box: type a rule or move its numbers, and see what it keeps and drops.

import { about, get, remember } from "../api.js";
import { el, fill, notice, number } from "../dom.js";
import { onKeys } from "../keys.js";
import { completing } from "../rule/complete.js";
import { atRandom, besideCut } from "../rule/examples.js";
import { saving } from "../rule/save.js";
import { sliderList } from "../rule/sliders.js";

const TYPED = 250, MOVED = 40, LOOKED = 200; // ms of rest before the server is asked
const SHOWN = 12; // pictures a side

export async function show(main, params) {
  const facts = await about();
  const state = {
    where: params.get("where") || "true",
    keep: params.get("keep") === "1",
    seed: Number(params.get("seed")) || 1,
    edge: Number(params.get("edge")) || 0,
    step: params.get("step") ?? "",
  };
  const page = crypto.getRandomValues(new Uint32Array(2)).join("-"); // whose questions replace each other
  let answer = null, asking = new AbortController(), looking = new AbortController();
  let waiting = 0, lookingSoon = 0, recipes = [];

  const box = el("textarea", { id: "where", rows: "3", spellcheck: "false", autocomplete: "off", autocapitalize: "off" });
  box.value = state.where;
  const wrong = el("p", { class: "wrong", role: "alert", id: "wrong" });
  box.setAttribute("aria-describedby", "wrong");
  const count = el("div", { class: "kept-count", role: "status" });
  const funnel = el("div", { class: "scroll" });
  const sliderPlace = el("div", { class: "sliders" });
  const cutPlace = el("div", {}), randomPlace = el("div", {});
  const copies = el("input", { type: "checkbox", id: "drop-copies", checked: !state.keep });
  const copiesTold = el("span", {}, "Drop copies");
  const start = el("select", { id: "start-from" });
  const sliders = sliderList(sliderPlace, {
    moved: (index, text) => {
      const { start: from, end } = answer.sliders[index];
      const longer = text.length - (end - from);
      box.value = box.value.slice(0, from) + text + box.value.slice(end);
      for (const slider of answer.sliders) {
        if (slider.start > from) { slider.start += longer; slider.end += longer; }
      }
      const mine = answer.sliders[index];
      mine.end += longer;
      mine.value = Number(text);
      if (!mine.share) mine.threshold = mine.value;
      sliders.show(answer.sliders, state.edge);
      changed(MOVED);
    },
    chosen: (index) => {
      if (state.edge === index) return;
      state.edge = index;
      sliders.show(answer.sliders, index);
      write();
      look();
    },
  });

  const write = () => remember("rule", { ...state, where: state.where === "true" ? "" : state.where,
    seed: state.seed === 1 ? "" : state.seed, edge: state.edge || "" });

  /** The rule is another: ask after a moment of rest, and forget what was asked. */
  function changed(rest) {
    state.where = box.value;
    clearTimeout(waiting);
    clearTimeout(lookingSoon);
    waiting = setTimeout(ask, rest);
  }

  async function ask() {
    write();
    asking.abort();
    looking.abort();
    asking = new AbortController();
    main.classList.add("asking");
    try {
      answer = await get("/api/rule", { where: state.where, keep_duplicates: state.keep, page }, asking.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(wrong, error.message);
      box.setAttribute("aria-invalid", "true");
      main.classList.remove("asking");
      main.classList.add("refused");
      return;
    }
    fill(wrong);
    box.removeAttribute("aria-invalid");
    main.classList.remove("asking", "refused");
    answer.keep = state.keep;
    state.edge = Math.min(state.edge, Math.max(0, answer.sliders.length - 1));
    if (Number(state.step) >= answer.funnel.length) state.step = "";
    sliders.show(answer.sliders, state.edge);
    drawCounts(count, answer);
    drawFunnel(funnel, answer, state.step, (step) => { state.step = step; write(); look(); });
    const last = answer.funnel.at(-1);
    fill(copiesTold, "Drop copies", !state.keep && last.removed_in_order > 0 &&
      el("span", { class: "muted" }, ` (−${number(last.removed_in_order)})`));
    lookingSoon = setTimeout(look, LOOKED);
  }

  async function look() {
    looking.abort();
    looking = new AbortController();
    const { signal } = looking, mine = answer;
    const asked = (more) => get("/api/examples", { where: state.where, keep_duplicates: state.keep, seed: state.seed,
      count: SHOWN, page, ...more }, signal);
    const slider = mine.sliders[state.edge];
    try {
      const [sides, kept, dropped] = await Promise.all([
        slider ? asked({ edge: String(slider.number) }) : null,
        asked({ side: "kept" }), asked({ side: "dropped", step: state.step }),
      ]);
      if (signal.aborted || mine !== answer) return;
      if (sides) besideCut(cutPlace, sides, slider);
      else fill(cutPlace);
      atRandom(randomPlace, { kept: kept.rows, dropped: dropped.rows, answer, step: state.step, where: state.where,
        changed: ({ step, others }) => {
          if (others) state.seed += 1;
          else state.step = step;
          write();
          look();
          drawFunnel(funnel, answer, state.step, (one) => { state.step = one; write(); look(); });
        } });
    } catch (error) {
      if (error.name !== "AbortError" && mine === answer && !signal.aborted) notice(error.message);
    }
  }

  async function offer() {
    const { presets, selections } = await get("/api/presets");
    recipes = presets;
    const option = ({ name, where, problem, about: told }) =>
      el("option", { value: name, disabled: !where, title: problem ?? told ?? where }, where ? name : `${name} (not here)`);
    fill(start, el("option", { value: "" }, "Start from…"),
      selections.length > 0 && el("optgroup", { label: "Stored selections" }, selections.map((one) =>
        option({ ...one, name: `= ${one.name}` }))),
      el("optgroup", { label: "Published recipes" }, presets.map(option)));
    start.onchange = () => {
      const chosen = start.value.startsWith("= ")
        ? selections.find(({ name }) => `= ${name}` === start.value)
        : presets.find(({ name }) => name === start.value);
      start.value = "";
      if (!chosen) return;
      box.value = chosen.where;
      if (chosen.keep_duplicates !== undefined) {
        state.keep = Boolean(chosen.keep_duplicates);
        copies.checked = !state.keep;
      }
      sliders.stale();
      changed(0);
      box.focus();
    };
  }

  box.addEventListener("input", () => { sliders.stale(); changed(TYPED); });
  copies.addEventListener("change", () => { state.keep = !copies.checked; changed(0); });
  const style = el("link", { rel: "stylesheet", href: "/static/rule.css" });
  const styled = new Promise((resolve) => { style.onload = style.onerror = resolve; });
  document.head.append(style);
  await styled;
  fill(main,
    el("section", { class: "writing" },
      el("div", { class: "card" },
        el("div", { class: "above-box" }, el("label", { for: "where" }, "Rule, in SQL"), start),
        el("div", { class: "box" }, box, wrong, completing(box, facts.columns)),
        el("label", { class: "toggle" }, copies, copiesTold), count),
      sliderPlace,
      funnel,
      saving(() => {
        // A recipe as it stands is saved by its name, which the record of the selection then tells.
        const recipe = recipes.find(({ where }) => where === state.where);
        const rule = recipe ? { preset: recipe.name } : { where: state.where };
        return { ...rule, keep_duplicates: state.keep };
      }, offer)),
    el("section", { class: "seeing" }, cutPlace, randomPlace));
  onKeys({
    "/": ["write the rule", () => box.focus()],
    "o": ["draw others at random", () => main.querySelector("#others")?.click()],
    "c": ["keep or drop copies", () => copies.click()],
    "Escape": ["leave the box", () => document.activeElement.blur()],
  });
  await Promise.all([offer(), ask()]);
  return () => {
    clearTimeout(waiting);
    clearTimeout(lookingSoon);
    asking.abort();
    looking.abort();
    style.remove();
  };
}

function drawCounts(place, { kept, stored }) {
  const share = stored ? kept / stored : 0;
  fill(place,
    el("strong", { id: "kept" }, number(kept)), ` of ${number(stored)} kept `,
    el("span", { class: "muted" }, `(${number(100 * share, share && share < 0.1 ? 2 : 1)}%)`),
    el("div", { class: "meter", "aria-hidden": "true" }, el("div", { style: { width: `${100 * share}%` } })));
}

function drawFunnel(place, { funnel, stored }, step, chosen) {
  const removed = (value) => el("td", { class: "number" }, value ? `−${number(value)}` : "0");
  fill(place, el("table", { class: "funnel" },
    el("thead", {}, el("tr", {}, el("th", {}, "Rule"),
      ["Alone", "In order", "Unscored", "Left"].map((name) => el("th", { class: "number" }, name)))),
    el("tbody", {},
      el("tr", {}, el("td", {}, "stored"), el("td"), el("td"), el("td"), el("td", { class: "number" }, number(stored))),
      funnel.map((told, index) => el("tr", { class: String(index) === step && "chosen" },
        el("td", {}, el("button", { class: "quiet step", type: "button", title: told.sql ?? "Show what it drops",
          "aria-pressed": String(index) === step ? "true" : "false",
          on: { click: () => chosen(String(index) === step ? "" : String(index)) } }, told.rule)),
        removed(told.removed_alone + told.unscored_alone), removed(told.removed_in_order + told.unscored_in_order),
        el("td", { class: "number" }, number(told.unscored_in_order)),
        el("td", { class: "number" }, number(told.left)))))));
}
