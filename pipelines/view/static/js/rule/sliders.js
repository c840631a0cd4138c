// A slider over a histogram for each number of a rule that is compared with something.

import { el, fill, number, svg } from "../dom.js";

const SIGNS = { ">=": "≥", "<=": "≤", ">": ">", "<": "<" };
const KEEPS = { ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, "<": (a, b) => a < b };
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
  const scale = scaleOf(slider);
  const picture = svg("svg", { viewBox: `0 0 ${slider.counts.length} ${TALL}`, preserveAspectRatio: "none",
    "aria-hidden": "true" });
  const bars = barsOf(slider);
  const line = svg("line", { class: "cut", y1: 0, y2: TALL });
  picture.append(...bars, line);
  const input = el("input", { type: "range", id: `slider-${index}`, step: scale.step });
  const told = el("output", { for: input.id });
  const missing = slider.missing ? `${number(slider.missing)} without` : "";
  const node = el("div", { class: "slider" },
    el("label", { for: input.id }, el("code", {}, slider.expression), " ", told),
    el("div", { class: "behind" }, picture, input),
    el("div", { class: "ends" }, slider.share
      ? [el("span", {}, "1%"), el("span", {}, "share of all"), el("span", {}, "100%")]
      : [el("span", {}, brief(scale.low)), el("span", {}, missing), el("span", {}, brief(scale.high))]));
  input.addEventListener("input", () => calls.moved(index, scale.written(Number(input.value))));
  node.addEventListener("pointerdown", () => calls.chosen(index));
  input.addEventListener("focus", () => calls.chosen(index));

  function update(now, chosen) {
    const place = scale.place(now.value);
    input.disabled = false;
    input.min = Math.min(scale.min, place);
    input.max = Math.max(scale.max, place);
    if (Number(input.value) !== place) input.value = place;
    const cut = placeOf(now.edges, now.threshold ?? now.edges.at(-1));
    const keeps = KEEPS[now.share ? ">=" : now.operator];
    bars.forEach((bar, at) => bar.setAttribute("class", keeps(at + 0.5, cut) ? "kept" : "left"));
    line.setAttribute("x1", cut);
    line.setAttribute("x2", cut);
    const text = now.share
      ? `top ${number(100 * now.value, 1)}% (≥ ${now.threshold === null ? "–" : Number(now.threshold.toPrecision(4))})`
      : `${SIGNS[now.operator]} ${now.value}`;
    input.setAttribute("aria-valuetext", text);
    fill(told, text);
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

/** Where a value lies among the bars, in bars from the left; beyond the ends, at them. */
function placeOf(edges, value) {
  const bar = edges.findIndex((edge) => edge >= value);
  if (bar < 0) return edges.length - 1;
  return bar && bar - (edges[bar] - value) / (edges[bar] - edges[bar - 1]);
}

const fixed = (digits) => (value) => String(Number(value.toFixed(digits)));
const brief = (value) => (Math.abs(value) < 1e15 ? value.toLocaleString("en-US", { maximumSignificantDigits: 6 })
  : value.toExponential(2)).replace("-", "−");

/**
 * What the input's own values stand for: `place` of a value, and the number that is `written` for a
 * place, with as many digits as one would write. Equal bars: the value itself, in a four-hundredth
 * of the range. Else places among the bars, a twentieth of one apart.
 */
function scaleOf({ edges, even, whole, share }) {
  const itself = (value) => value;
  if (share) return { min: 0.01, max: 1, step: 0.005, place: itself, written: fixed(3) };
  const range = edges.at(-1) - edges[0];
  const step = whole ? Math.max(1, power((range - 1) / 200)) : power(range / 100);
  const digits = Math.min(100, Math.max(0, -Math.round(Math.log10(step))));
  const [first, end] = whole ? [Math.ceil(edges[0]), Math.floor(edges.at(-1))] : [edges[0], edges.at(-1)];
  const low = Number((Math.floor(first / step) * step + 0).toFixed(digits)); // + 0: no -0
  const high = whole ? end : Number((Math.ceil(end / step) * step).toFixed(digits));
  if (even) return { low, high, min: low, max: high, step, place: itself, written: fixed(digits) };
  const bars = edges.length - 1;
  const narrowest = Math.min(...edges.slice(1).map((edge, place) => edge - edges[place]));
  const inside = whole ? 0.5 : 0; // whole numbers stand in the middle of their bars
  return {
    low: rounded(first, range / bars / 100, whole), high: rounded(end, range / bars / 100, whole),
    min: inside, max: bars - inside, step: whole ? 1 / Math.min(20, Math.max(1, narrowest)) : 0.05,
    place: (value) => placeOf(edges, value),
    written(place) {
      const bar = Math.min(bars - 1, Math.floor(place)), width = edges[bar + 1] - edges[bar];
      return String(rounded(edges[bar] + (place - bar) * width, width / 40, whole));
    },
  };
}

const power = (value) => 10 ** Math.floor(Math.log10(Math.max(value, Number.MIN_VALUE)));

/** A value in steps of the power of ten below `fine`; of whole numbers at least 1. */
function rounded(value, fine, whole) {
  const step = whole ? Math.max(1, power(fine)) : power(fine);
  return Number((Math.round(value / step) * step).toFixed(Math.min(100, Math.max(0, -Math.round(Math.log10(step))))));
}
