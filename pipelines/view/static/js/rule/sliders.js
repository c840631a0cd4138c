// A slider over a histogram for each number of a rule that is compared with something.

import { el, fill, number, svg } from "../dom.js";

const SIGNS = { ">=": "≥", "<=": "≤", ">": ">", "<": "<" };
const TALL = 40;

/**
 * The sliders of a rule in an element.
 *
 * @param {HTMLElement} place
 * @param calls  moved(index, text): the number becomes `text`; chosen(index): look at this cut
 * @returns {show(sliders, chosen), stale()}
 */
export function sliderList(place, calls) {
  let drawn = "", parts = [];

  return {
    /** Draw /api/rule's sliders; those that stay keep their elements, so that a drag goes on. */
    show(sliders, chosen) {
      const names = JSON.stringify(sliders.map(({ expression, operator, edges }) => [expression, operator, edges[0]]));
      if (names !== drawn) {
        parts = sliders.map((slider, index) => one(slider, index, calls));
        fill(place, parts.map(({ node }) => node));
        drawn = names;
      }
      parts.forEach((part, index) => part.update(sliders[index], index === chosen));
    },
    /** The text was typed and its numbers may stand elsewhere: wait for the answer. */
    stale() {
      for (const part of parts) part.input.disabled = true;
    },
  };
}

function one(slider, index, calls) {
  const { low, high, step, digits } = scale(slider);
  const picture = svg("svg", { viewBox: `0 0 ${slider.counts.length} ${TALL}`, preserveAspectRatio: "none",
    "aria-hidden": "true" });
  const bars = barsOf(slider);
  const line = svg("line", { class: "cut", y1: 0, y2: TALL });
  picture.append(...bars, line);
  const input = el("input", { type: "range", id: `slider-${index}`, step });
  const told = el("output", { for: input.id });
  const missing = slider.missing ? `${number(slider.missing)} without` : "";
  const node = el("div", { class: "slider" },
    el("label", { for: input.id }, el("code", {}, slider.expression), " ", told),
    el("div", { class: "behind" }, picture, input),
    el("div", { class: "ends" }, slider.share
      ? [el("span", {}, "1%"), el("span", {}, "share of all"), el("span", {}, "100%")]
      : [el("span", {}, number(low, digits)), el("span", {}, missing), el("span", {}, number(high, digits))]));
  input.addEventListener("input", () => calls.moved(index, String(Number(Number(input.value).toFixed(digits)))));
  node.addEventListener("pointerdown", () => calls.chosen(index));
  input.addEventListener("focus", () => calls.chosen(index));

  function update(now, chosen) {
    input.disabled = false;
    input.min = Math.min(low, now.value);
    input.max = Math.max(high, now.value);
    if (Number(input.value) !== now.value) input.value = now.value;
    const [from, to] = [now.edges[0], now.edges.at(-1)];
    const cut = Math.max(0, Math.min(1, ((now.threshold ?? to) - from) / (to - from)));
    const above = now.operator.startsWith(">") || now.share;
    bars.forEach((bar, place) => {
      const middle = (place + 0.5) / bars.length;
      bar.setAttribute("class", (middle > cut) === above ? "kept" : "left");
    });
    line.setAttribute("x1", cut * bars.length);
    line.setAttribute("x2", cut * bars.length);
    fill(told, now.share
      ? `top ${number(100 * now.value, 1)}% (≥ ${now.threshold === null ? "–" : Number(now.threshold.toPrecision(4))})`
      : `${SIGNS[now.operator]} ${now.value}`);
    node.classList.toggle("chosen", chosen);
  }
  return { node, input, update };
}

function barsOf({ counts }) {
  const most = Math.max(1, ...counts);
  return counts.map((count, place) => {
    const height = count ? Math.max(1, (TALL * count) / most) : 0;
    return svg("rect", { x: place + 0.06, y: TALL - height, width: 0.88, height });
  });
}

/** Ends and step of a slider: a four-hundredth of its range, as a number one would write. */
function scale({ edges, whole, share }) {
  if (share) return { low: 0.01, high: 1, step: 0.005, digits: 3 };
  if (whole) {
    const [low, high] = [Math.ceil(edges[0]), Math.floor(edges.at(-1))];
    const step = Math.max(1, 10 ** Math.floor(Math.log10(Math.max(1, (high - low) / 200))));
    return { low: Math.floor(low / step) * step + 0, high, step, digits: 0 }; // + 0: no -0
  }
  const step = 10 ** Math.floor(Math.log10((edges.at(-1) - edges[0]) / 100));
  const digits = Math.max(0, -Math.round(Math.log10(step)));
  const low = Math.floor(edges[0] / step) * step;
  return { low: Number(low.toFixed(digits)), high: Number((Math.ceil(edges.at(-1) / step) * step).toFixed(digits)), step, digits };
}
