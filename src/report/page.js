"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

function make(tag, props, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, props);
  element.append(...children);
  return element;
}

// ---- curves

const SVG = "http://www.w3.org/2000/svg";
const HUES = ["sft", "rl", "control", "base"];

function draw(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function hue(name, index) {
  return `var(--${HUES.includes(name) ? name : HUES[index % HUES.length]})`;
}

// Steps are integers, so their ticks must be integers, too.
function ticks(low, high, about, least = 0) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(least, power * ([1, 2, 5].find(m => m * power >= rough) ?? 10));
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && out.length < 100; i++) out.push(i * step);
  return out;
}

// Ticks at 1, 2 and 5 times each power of ten, or only at the powers if there are many.
function decades(low, high) {
  const of = steps => {
    const out = [];
    for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) out.push(...steps.map(m => m * power));
    return out.filter(v => v >= low && v <= high);
  };
  const fine = of([1, 2, 5]);
  return fine.length > 7 ? of([1]) : fine;
}

function figure(value) {
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return String(+value.toPrecision(size >= 1000 ? 5 : 4));
}

// A running mean over about 4 % of the points. It is drawn over the raw line.
function smooth(points) {
  const reach = Math.floor(points.length / 50);
  return points.map((point, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [point[0], near.reduce((sum, p) => sum + p[1], 0) / near.length];
  });
}

function chart(box, curve) {
  box.replaceChildren();
  const width = box.clientWidth, height = box.clientHeight;
  const edge = { left: 46, right: 12, top: 20, bottom: 24 };
  const lines = curve.series.filter(s => s.points.length > 0);
  const all = lines.flatMap(s => s.points);
  if (all.length === 0) return;
  const xs = all.map(p => p[0]), ys = all.map(p => p[1]).sort((a, b) => a - b);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1);
  // A single spike must not flatten the rest: the axis covers all but the outermost points.
  const cut = Math.floor(ys.length / 200);
  let y0 = ys[cut], y1 = ys[ys.length - 1 - cut];
  // Values that differ only by rounding are drawn as a flat line.
  if (y1 - y0 <= 1e-9 * Math.max(Math.abs(y0), Math.abs(y1))) y1 = y0;
  const log = curve.log && y0 > 0 && y1 > 4 * y0;
  if (!log && y0 > 0 && y0 < y1 * 0.6) y0 = 0;
  if (y0 === y1) { y0 = Math.min(y0, 0); y1 = Math.max(y1, y0 + 1); }
  const marks = log ? decades(y0, y1) : ticks(y0, y1, 5);
  if (!log && marks.length > 1) y1 = Math.max(y1, marks[marks.length - 1]);
  const scale = log ? Math.log : v => v;
  const x = v => edge.left + (v - x0) / (x1 - x0) * (width - edge.left - edge.right);
  const y = v => height - edge.bottom - (scale(Math.min(Math.max(v, y0), y1)) - scale(y0)) / (scale(y1) - scale(y0)) * (height - edge.top - edge.bottom);
  const said = lines.map(s => `${s.name} from ${figure(s.points[0][1])} to ${figure(s.points[s.points.length - 1][1])}`);
  const svg = draw("svg", { role: "img", "aria-label": `${curve.title}: ${said.join(", ")}` }, box);
  for (const mark of marks) {
    draw("line", { x1: edge.left, x2: width - edge.right, y1: y(mark), y2: y(mark), class: "grid" }, svg);
    draw("text", { x: edge.left - 8, y: y(mark) + 4, "text-anchor": "end" }, svg).textContent = figure(mark);
  }
  for (const mark of ticks(x0, x1, width / 90, 1)) {
    draw("text", { x: x(mark), y: height - 4, "text-anchor": "middle" }, svg).textContent = figure(mark);
  }
  draw("line", { x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom, class: "axis" }, svg);
  const clamp = points => points.map(p => [p[0], Math.min(Math.max(p[1], y0), y1)]);
  const path = points => points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
  lines.forEach((series, i) => {
    const stroke = hue(series.name, i);
    if (series.points.length > 40) draw("path", { d: path(series.points), class: "raw", style: `stroke:${stroke}` }, svg);
    draw("path", { d: path(smooth(clamp(series.points))), class: "smooth", style: `stroke:${stroke}` }, svg);
  });
  let at = edge.left + 4;
  if (lines.length > 1) lines.forEach((series, i) => {
    const name = draw("text", { x: at, y: 11, class: "name", style: `fill:${hue(series.name, i)}` }, svg);
    name.textContent = series.name;
    at += name.getComputedTextLength() + 14;
  });
  pointer(box, svg, lines, x, { x0, x1, edge, width, height });
}

function pointer(box, svg, lines, x, { x0, x1, edge, width, height }) {
  const cursor = draw("line", { y1: edge.top - 6, y2: height - edge.bottom, class: "cursor", visibility: "hidden" }, svg);
  const tip = make("div", { className: "tip", hidden: true });
  box.append(tip);
  box.onpointermove = event => {
    const share = (event.clientX - box.getBoundingClientRect().left - edge.left) / (width - edge.left - edge.right);
    const step = x0 + Math.min(Math.max(share, 0), 1) * (x1 - x0);
    const near = lines.map(s => [s, s.points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)]);
    const best = near.reduce((a, b) => Math.abs(b[1][0] - step) < Math.abs(a[1][0] - step) ? b : a)[1][0];
    cursor.setAttribute("x1", x(best));
    cursor.setAttribute("x2", x(best));
    cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    const rows = near.filter(([, p]) => p[0] === best).map(([s, p]) => make("div", {}, `${s.name} `, make("b", { textContent: figure(p[1]) })));
    tip.replaceChildren(make("div", { textContent: `step ${figure(best)}` }), ...rows);
    const left = x(best) + 10;
    tip.style.left = `${left + tip.offsetWidth > width ? x(best) - 10 - tip.offsetWidth : left}px`;
  };
  box.onpointerleave = () => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  };
}

const charts = [...document.querySelectorAll(".chart")];
const redraw = new ResizeObserver(entries => entries.forEach(e => chart(e.target, data.curves[e.target.dataset.curve])));
charts.forEach(box => redraw.observe(box));

// ---- examples

const PAGE = 8;
const KINDS = [
  ["fixed", "Fixed by RL", (before, after) => !before.right && after.right],
  ["broken", "Broken by RL", (before, after) => before.right && !after.right],
  ["right", "Correct both times", (before, after) => before.right && after.right],
  ["wrong", "Wrong both times", (before, after) => !before.right && !after.right],
  ["all", "All", () => true],
];

function pane(name, shown) {
  const verdict = shown.right ? "\u2713 correct" : shown.format ? "\u2717 wrong" : "\u2717 wrong format";
  return make("article", { className: `pane ${shown.right ? "right" : "wrong"}` },
    make("header", {}, name, make("span", { className: "pill", textContent: verdict })),
    make("p", { className: "think", textContent: shown.think || "(nothing)" }),
    make("p", { className: "answer" }, "Answer: ", make("b", { textContent: shown.answer || "none" }),
      make("small", { textContent: `${shown.length} tokens` })));
}

function panel(example, how) {
  const about = make("div", { className: "about" });
  if (example.picture) about.append(make("img", { src: example.picture, alt: `Picture of question ${example.id}`, loading: "lazy" }));
  about.append(make("p", { className: "ask", textContent: example.question }),
    make("p", { className: "gold" }, "Correct answer: ", make("b", { textContent: example.target })));
  const [before, after] = example[how];
  return make("div", { className: "panel" }, about, pane("SFT", before), pane("RL", after));
}

function browse(section) {
  const [kinds, hows] = section.querySelectorAll(".chips");
  const search = section.querySelector("input");
  const status = section.querySelector("[role=status]");
  const panels = section.querySelector(".panels");
  const more = section.querySelector(".more");
  const possible = [["greedy", "Greedy"], ["sampled", "Temperature 1"]].filter(([how]) => data.examples.some(e => e[how]));
  const state = { kind: "fixed", how: possible[0]?.[0], shown: PAGE };

  function chips(box, items, key) {
    box.replaceChildren(...items.map(([value, label]) => make("button", {
      type: "button", textContent: label, ariaPressed: String(state[key] === value),
      onclick: () => { state[key] = value; state.shown = PAGE; show(); },
    })));
  }

  function show() {
    const usable = data.examples.filter(e => e[state.how]);
    const count = ([value, label, test]) => [value, `${label} (${usable.filter(e => test(...e[state.how])).length})`];
    chips(kinds, KINDS.map(count), "kind");
    chips(hows, possible.length > 1 ? possible : [], "how");
    const test = KINDS.find(kind => kind[0] === state.kind)[2];
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = e => [e.id, e.question, e.target, ...e[state.how].flatMap(s => [s.think, s.answer])].join(" ").toLowerCase();
    const found = usable.filter(e => test(...e[state.how]) && words.every(word => text(e).includes(word)));
    status.textContent = found.length === 0 ? "No questions." : `${Math.min(state.shown, found.length)} of ${found.length} shown.`;
    panels.replaceChildren(...found.slice(0, state.shown).map(e => panel(e, state.how)));
    more.hidden = found.length <= state.shown;
  }

  search.oninput = () => { state.shown = PAGE; show(); };
  more.onclick = () => { state.shown += PAGE; show(); };
  const first = KINDS.find(kind => data.examples.some(e => e[state.how] && kind[2](...e[state.how])));
  if (first) state.kind = first[0];
  show();
}

const examples = document.getElementById("examples");
if (examples && data.examples.length > 0) browse(examples);
