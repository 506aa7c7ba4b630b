"use strict";
let data = JSON.parse(document.getElementById("data").textContent);

// ---- curves

const SVG = "http://www.w3.org/2000/svg";
const HUES = ["sft", "rl", "control", "base"];
const EDGE = { left: 50, right: 12, top: 8, bottom: 24 };
// What the reader chose above the curves. Smoothing is the share of the points in a running mean, in percent. The range
// that the reader zoomed to is stored for each title of a chart.
const view = { smoothing: 4, axis: "step", scale: "auto", ranges: new Map() };

function draw(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function hue(name, index) {
  return `var(--${HUES.includes(name) ? name : HUES[index % HUES.length]})`;
}

// The smallest of 1, 2 and 5 times a power of ten that divides the range into at most `about` parts.
function interval(range, about) {
  const power = 10 ** Math.floor(Math.log10(range / about));
  return power * ([1, 2, 5].find(m => m * power >= range / about * (1 - 1e-9)) ?? 10);
}

function multiples(low, high, step) {
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && out.length < 100; i++) out.push(i * step);
  return out;
}

// Steps are integers, so their ticks must be integers, too. Ticks of times are those of clocks.
const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
function positions(low, high, about) {
  if (view.axis === "step") return multiples(low, high, Math.max(1, interval(high - low, about)));
  const step = CLOCK.find(s => s >= (high - low) / about) ?? 86400 * Math.max(1, interval((high - low) / 86400, about));
  return multiples(low, high, step);
}

// Ticks at 1, 2 and 5 times each power of ten, or only at the powers if there are many.
function decades(low, high) {
  const of = steps => {
    const out = [];
    for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) out.push(...steps.map(m => m * power));
    return out.filter(v => v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9));
  };
  const fine = of([1, 2, 5]);
  return fine.length > 7 ? of([1]) : fine;
}

function figure(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(1);
  if (size >= 1e4) return size < 1e6 ? `${+(value / 1e3).toPrecision(4)}k` : `${+(value / 1e6).toPrecision(4)}M`;
  return String(+value.toPrecision(4));
}

function position(value) {
  if (view.axis === "step") return figure(Math.round(value));
  const [h, m, s] = [Math.floor(value / 3600), Math.floor(value / 60) % 60, Math.round(value % 60)];
  return h ? `${h} h${m ? ` ${m} min` : ""}` : m ? `${m} min${s ? ` ${s} s` : ""}` : `${s} s`;
}

// A centred running mean, which is drawn over the raw line.
function smooth(points) {
  const reach = Math.floor(points.length * view.smoothing / 200);
  return reach === 0 ? points : points.map(([at], i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [at, near.reduce((sum, p) => sum + p[1], 0) / near.length];
  });
}

// The ends of the vertical axis and its ticks. Rounding outwards gives the curve a tick above and one below.
function vertical(curve, values) {
  values.sort((a, b) => a - b);
  // A single spike must not flatten the rest: the axis covers all but the outermost points.
  const cut = Math.floor(values.length / 200);
  let low = values[cut], high = values[values.length - 1 - cut];
  const spread = curve.log && high > 4 * low;
  if (low > 0 && (view.scale === "log" || view.scale === "auto" && spread)) {
    const marks = decades(low, high);
    if (marks.length > 1) return { low, high, marks, scale: Math.log };
  }
  // Values that hardly differ would have ticks that are noise, so their axis begins at 0.
  if (low > 0 && (low < high * 0.6 || high - low < high * 0.05)) low = 0;
  if (high <= low) [low, high] = [Math.min(low, 0), Math.max(high, low + 1)];
  const step = interval(high - low, 4);
  low = Math.floor(low / step + 1e-9) * step;
  high = Math.ceil(high / step - 1e-9) * step;
  return { low, high, marks: multiples(low, high, step), scale: v => v };
}

function chart(box) {
  const curve = data.curves[box.dataset.curve], [width, height] = [box.clientWidth, box.clientHeight];
  box.replaceChildren();
  if (!width) return;
  const of = point => view.axis === "step" ? point[0] : point[2];
  const range = view.ranges.get(curve.title);
  const inside = ([at]) => !range || at >= range[0] && at <= range[1];
  const lines = curve.series.map((s, i) => {
    const points = s.points.map(p => [of(p), p[1], p[0]]);
    return { name: s.name, stroke: hue(s.name, i), points: points.filter(inside), smooth: smooth(points).filter(inside) };
  }).filter(s => s.points.length > 0);
  const xs = lines.flatMap(s => s.points.map(p => p[0]));
  const [x0, x1] = range ?? [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)];
  if (lines.length === 0) return void box.append(make("p", { className: "sub", textContent: "No points here. Double-click to zoom out." }));
  const { low, high, marks, scale } = vertical(curve, lines.flatMap(s => s.points.map(p => p[1])));
  const x = v => EDGE.left + (v - x0) / (x1 - x0) * (width - EDGE.left - EDGE.right);
  const clamp = v => Math.min(Math.max(v, low), high);
  const y = v => height - EDGE.bottom - (scale(clamp(v)) - scale(low)) / (scale(high) - scale(low)) * (height - EDGE.top - EDGE.bottom);
  const said = lines.map(s => `${s.name} from ${figure(s.points[0][1])} to ${figure(s.points[s.points.length - 1][1])}`);
  const svg = draw("svg", { role: "img", "aria-label": `${curve.title}: ${said.join(", ")}` }, box);
  for (const mark of marks) {
    draw("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(mark), y2: y(mark), class: "grid" }, svg);
    draw("text", { x: EDGE.left - 8, y: y(mark) + 4, "text-anchor": "end" }, svg).textContent = figure(mark);
  }
  for (const mark of positions(x0, x1, width / 70)) {
    draw("text", { x: x(mark), y: height - 4, "text-anchor": "middle" }, svg).textContent = position(mark);
  }
  draw("line", { x1: EDGE.left, x2: width - EDGE.right, y1: height - EDGE.bottom, y2: height - EDGE.bottom, class: "axis" }, svg);
  const path = points => points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
  for (const line of lines) {
    if (line.smooth.length !== 1) {
      if (line.points.length > 40) draw("path", { d: path(line.points), class: "raw", style: `stroke:${line.stroke}` }, svg);
      draw("path", { d: path(line.points.length > 40 ? line.smooth : line.points), class: "smooth", style: `stroke:${line.stroke}` }, svg);
    } else draw("circle", { cx: x(line.points[0][0]), cy: y(line.points[0][1]), r: 3, style: `fill:${line.stroke}` }, svg);
  }
  box.previousElementSibling.replaceChildren(...(curve.series.length > 1 ? lines : []).map(s => {
    const name = make("span", { textContent: s.name });
    name.style.color = s.stroke;
    return name;
  }));
  pointer(box, svg, { curve, lines, x, x0, x1, width, height });
}

// Shows the values at the pointer. Dragging zooms, a double click shows everything again.
function pointer(box, svg, { curve, lines, x, x0, x1, width, height }) {
  const cursor = draw("line", { y1: EDGE.top, y2: height - EDGE.bottom, class: "cursor", visibility: "hidden" }, svg);
  const chosen = draw("rect", { y: EDGE.top, height: height - EDGE.top - EDGE.bottom, class: "chosen", visibility: "hidden" }, svg);
  const tip = make("div", { className: "tip", hidden: true });
  box.append(tip);
  let start = null;
  const at = event => {
    const share = (event.clientX - box.getBoundingClientRect().left - EDGE.left) / (width - EDGE.left - EDGE.right);
    return x0 + Math.min(Math.max(share, 0), 1) * (x1 - x0);
  };
  const nearest = (points, where) => points.reduce((a, b) => Math.abs(b[0] - where) < Math.abs(a[0] - where) ? b : a);
  box.onpointermove = event => {
    const where = at(event), near = lines.map(s => [s, nearest(s.points, where)]);
    const best = nearest(near.map(([, p]) => p), where);
    cursor.setAttribute("x1", x(best[0]));
    cursor.setAttribute("x2", x(best[0]));
    cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    const rows = near.filter(([, p]) => p[0] === best[0]).map(([s, p]) => make("div", {}, `${s.name} `, make("b", { textContent: figure(p[1]) })));
    const step = `step ${Math.round(best[2]).toLocaleString("en")}`, head = view.axis === "step" ? step : `${step}, ${position(best[0])}`;
    tip.replaceChildren(make("div", { textContent: head }), ...rows);
    const left = x(best[0]) + 10;
    tip.style.left = `${left + tip.offsetWidth > width ? x(best[0]) - 10 - tip.offsetWidth : left}px`;
    if (start === null) return;
    chosen.setAttribute("x", Math.min(x(start), x(where)));
    chosen.setAttribute("width", Math.abs(x(where) - x(start)));
    chosen.setAttribute("visibility", "visible");
  };
  box.onpointerleave = () => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  };
  box.onpointerdown = event => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    box.setPointerCapture(event.pointerId);
    start = at(event);
  };
  box.onpointerup = event => {
    if (start === null) return;
    const range = [start, at(event)].sort((a, b) => a - b);
    start = null;
    chosen.setAttribute("visibility", "hidden");
    if (x(range[1]) - x(range[0]) < 6) return;
    view.ranges.set(curve.title, range);
    chart(box);
  };
  box.ondblclick = () => {
    view.ranges.delete(curve.title);
    chart(box);
  };
}

const boxes = () => document.querySelectorAll(".chart[data-curve]");
const redraw = new ResizeObserver(entries => entries.forEach(e => chart(e.target)));

function choice(name, options, title) {
  const select = make("select", { value: view[name], onchange: () => {
    view[name] = select.value;
    if (name === "axis") view.ranges.clear();
    boxes().forEach(chart);
  } }, ...options.map(([value, label]) => make("option", { value, textContent: label, selected: value === view[name] })));
  return make("label", {}, title, select);
}

function curves() {
  const section = document.getElementById("curves");
  if (!section) return;
  const slider = make("input", { type: "range", min: 0, max: 20, step: 1, value: view.smoothing, oninput: () => {
    view.smoothing = +slider.value;
    boxes().forEach(chart);
  } });
  section.querySelector(".tools").replaceChildren(make("label", {}, "Smoothing", slider),
    choice("axis", [["step", "steps"], ["time", "time since the start"]], "Horizontal"),
    choice("scale", [["auto", "as suggested"], ["linear", "linear"], ["log", "logarithmic"]], "Vertical"));
  redraw.disconnect();
  boxes().forEach(box => redraw.observe(box));
}

curves();
