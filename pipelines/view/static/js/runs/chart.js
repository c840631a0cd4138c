// A small chart of lines over training steps.

import { el, number, svg } from "../dom.js";
import { marker } from "../mark.js";

const WIDTH = 360, HEIGHT = 190;
const EDGE = { left: 48, right: 14, top: 10, bottom: 26 };

/** @param {object} chart  title, logarithmic, lines: [{name, steps, values}]; `marks`: name -> mark. */
export function lineChart({ title, logarithmic = false, lines }, marks = {}) {
  const placed = lines.map((line) => ({
    ...line,
    points: line.steps.map((step, index) => [step, line.values[index]])
      .filter(([, value]) => value !== null && (!logarithmic || value > 0)),
  })).filter((line) => line.points.length);
  if (!placed.length) return null;
  const steps = placed.flatMap((line) => line.points.map(([step]) => step));
  const values = placed.flatMap((line) => line.points.map(([, value]) => value));
  const measure = logarithmic ? Math.log10 : (value) => value;
  const ends = [Math.min(...values), Math.max(...values)];
  const low = logarithmic ? ends[0] : Math.min(0, ends[0]);
  const high = ends[1] > low ? ends[1] : low + (Math.abs(low) || 1);
  const first = Math.min(...steps), last = Math.max(...steps);
  const x = (step) => EDGE.left + (last > first ? (step - first) / (last - first) : 0.5) * (WIDTH - EDGE.left - EDGE.right);
  const y = (value) => HEIGHT - EDGE.bottom -
    ((measure(value) - measure(low)) / (measure(high) - measure(low))) * (HEIGHT - EDGE.bottom - EDGE.top);
  const told = placed.map((line) => `${line.name}: ${figure(line.points[0][1])} to ${figure(line.points.at(-1)[1])}`);
  return el("figure", { class: "plot" },
    el("figcaption", {}, title),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${told.join("; ")}.` },
      ticks(low, high, logarithmic).map((value) => [
        svg("line", { class: "grid-line", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }),
        svg("text", { x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, figure(value)),
      ]),
      ticks(first, last, false, 4).map((step) => svg("text", { x: x(step), y: HEIGHT - 8, "text-anchor": "middle" }, number(step))),
      placed.map((line) => {
        const mark = marks[line.name] ?? { css: "plain", outline: null };
        const corners = line.points.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
        const [step, value] = line.points.at(-1);
        return svg("g", { class: mark.css },
          svg("title", {}, `${line.name}: ${figure(value)} at step ${number(step)}`),
          svg("path", { class: "curve", d: `M${corners.join("L")}` }),
          marker(mark, x(step), y(value), 3.5));
      })));
}

/** Round values inside [low, high]; of a logarithmic axis 1, 2 and 5 times powers of ten. */
function ticks(low, high, logarithmic, about = 4) {
  const found = [];
  if (logarithmic) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      found.push(...[1, 2, 5].map((one) => one * 10 ** power));
    }
    const inside = found.filter((value) => value >= low && value <= high);
    const decades = inside.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
    if (inside.length >= 2) return inside.length > 7 ? decades : inside;
    return [low, high];
  }
  if (!(high > low)) return [low];
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999);
  for (let index = Math.ceil(low / step - 1e-9); index <= Math.floor(high / step + 1e-9); index += 1) found.push(index * step || 0);
  return found; // `|| 0`: no −0
}

/** A number with the digits that its size allows. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return number(value);
  if (size >= 10) return number(value, 1);
  if (size >= 0.001) return number(Number(value.toPrecision(3)), size >= 1 ? 2 : 3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  return value.toExponential(1).replace("-", "−");
}
