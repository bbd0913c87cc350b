// Figures of lines: values under the pointer, zoom in step, strategies on and off, log or linear.
// A figure that is changed is drawn anew from its data; else it is the one of the page itself.

const [LEFT, RIGHT, TOP, BOTTOM, WIDE] = [58, 706, 12, 34, 720];
const shared = { range: null, hidden: new Set(), charts: [] };

function node(name, attributes, words) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (words !== undefined) made.textContent = words;
  return made;
}
function written(value, unit) {
  if (value === null) return "\u2013";
  const digits = unit === "percent" ? 1 : 2;
  const text = (unit === "percent" ? 100 * value : value)
    .toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const signed = /^-[0.,]*$/.test(text) ? text.slice(1) : text.replace("-", "\u2212");
  return signed + (unit === "percent" ? "%" : "");
}
const iso = (day) => new Date(Math.round(day * 1440) * 6e4).toISOString();
function placeName(data, spot) {
  if (!data.dates) return `${data.x[spot]} bp`;
  const stamp = iso(data.x[spot]);
  return data.x[spot] % 1 ? stamp.slice(0, 16).replace("T", " ") : stamp.slice(0, 10);
}

// Axes: round numbers, powers, calendar dates, as the page's own figures have them

function roundMarks(low, high, most = 6) {
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 2.5, 5, 10, 20].map((s) => s * power).find((s) => (high - low) / s < most);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, k) => Number(((first + k) * step).toPrecision(12)));
}
function logMarks(low, high) {
  if (high / low < 4) return roundMarks(low, high, 5);
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const part of high / low < 200 ? [1, 2, 5] : [1]) found.push(part * 10 ** power);
  }
  return found.filter((value) => value >= low && value <= high);
}
function dateMarks(low, high) {
  const [span, start, end] = [high - low, new Date(low * 864e5), new Date(high * 864e5)];
  const marks = [];
  if (span > 800) {
    const step = [1, 2, 5, 10, 20, 50].find((s) => span / 365.25 / s <= 9) ?? 50;
    for (let year = Math.ceil(start.getUTCFullYear() / step) * step; year <= end.getUTCFullYear(); year += step) {
      marks.push([Date.UTC(year, 0, 1) / 864e5, String(year)]);
    }
  } else if (span > 45) {
    const step = [1, 2, 3, 6].find((s) => span / 30.4 / s <= 5) ?? 6;
    for (let month = 0; month <= span / 28 + 12; month += step) {
      const date = Date.UTC(start.getUTCFullYear(), month, 1);
      marks.push([date / 864e5, iso(date / 864e5).slice(0, 7)]);
    }
  } else {
    const step = Math.max(span > 2 ? 1 : 1 / 24, Math.ceil(span / 4 * (span > 2 ? 1 : 24)) / (span > 2 ? 1 : 24));
    for (let day = Math.ceil(low / step) * step; day <= high; day += step) {
      marks.push([day, span > 2 ? iso(day).slice(0, 10) : iso(day).slice(5, 16).replace("T", " ")]);
    }
  }
  return marks.filter(([day]) => day >= low && day <= high);
}

// Drawing

function thinned(spots, values, most) {  // lowest and highest of equal stretches
  if (spots.length <= most) return spots;
  const kept = new Set([spots[0], spots.at(-1)]);
  const size = spots.length / (most / 2);
  for (let k = 0; k < most / 2; k += 1) {
    const part = spots.slice(Math.floor(k * size), Math.floor((k + 1) * size)).filter((s) => values[s] !== null);
    if (!part.length) continue;
    kept.add(part.reduce((a, b) => (values[b] < values[a] ? b : a)));
    kept.add(part.reduce((a, b) => (values[b] > values[a] ? b : a)));
  }
  return [...kept].sort((a, b) => a - b);
}
function drawn(chart) {
  const { svg, data, own } = chart;
  const range = data.dates ? shared.range : null;
  chart.view = range ? [Math.max(range[0], data.span[0]), Math.min(range[1], data.span[1])] : data.span;
  chart.lines = data.lines.filter(([name]) => !shared.hidden.has(name));
  const plain = !range && chart.lines.length === data.lines.length && chart.log === data.log;
  if (plain || chart.view[0] >= chart.view[1]) {
    if (plain) svg.replaceChildren(...own, chart.cursor);
    return;
  }
  const bottom = svg.viewBox.baseVal.height - BOTTOM;
  const [from, to] = chart.view;
  const shown = data.x.map((_, k) => k).filter((k) => data.x[k] >= from && data.x[k] <= to);
  const usable = (value) => value !== null && (!chart.log || value > 0);
  const seen = chart.lines.flatMap(([, , values]) => shown.map((k) => values[k])).filter(usable);
  let [low, high] = seen.length ? [seen.reduce((a, b) => Math.min(a, b)), seen.reduce((a, b) => Math.max(a, b))] : [0, 1];
  if (data.fill !== null) high = Math.max(high, 0);
  const room = chart.log ? (high / low) ** 0.05 : 0.05 * (high - low) || 0.5;
  [low, high] = chart.log ? [low / Math.max(room, 1.01), high * Math.max(room, 1.01)] : [low - room, high + room];
  const level = chart.log ? Math.log : (value) => value;
  const across = (x) => LEFT + ((x - from) / (to - from)) * (RIGHT - LEFT);
  const up = (y) => bottom - ((level(y) - level(low)) / (level(high) - level(low))) * (bottom - TOP);
  const stroke = (d, ink, width = 0.8) => node("path", { d, style: `fill:none;stroke:var(--${ink});stroke-width:${width}` });
  const parts = [];
  for (const [first, last] of data.bands) {
    const [a, b] = [across(Math.max(first, from)), across(Math.min(last, to))];
    if (b > a) parts.push(node("rect", { x: a, y: TOP, width: b - a, height: bottom - TOP, style: "fill:var(--grid);opacity:.6" }));
  }
  for (const mark of chart.log ? logMarks(low, high) : roundMarks(low, high)) {
    const y = up(mark);
    const number = data.unit === "percent" ? 100 * mark : mark;
    const text = Number(number.toPrecision(data.unit === "percent" ? 3 : 6)).toLocaleString("en-US", { maximumFractionDigits: 8 });
    parts.push(stroke(`M${LEFT} ${y}H${RIGHT}`, mark === 0 ? "axis" : "grid"));
    parts.push(node("text", { "text-anchor": "end", x: LEFT - 6, y, dy: ".35em" }, text.replace("-", "\u2212") + (data.unit === "percent" ? "%" : "")));
  }
  const marks = data.dates ? dateMarks(from, to) : roundMarks(from, to, 7).map((x) => [x, String(x)]);
  parts.push(stroke(`M${LEFT} ${bottom}H${RIGHT}`, "axis"));
  for (const [x, words] of marks) {
    parts.push(stroke(`M${across(x)} ${bottom}v4`, "axis"));
    parts.push(node("text", { "text-anchor": "middle", x: across(x), y: bottom + 8, dy: ".8em" }, words));
  }
  [...chart.lines].reverse().forEach(([name, ink, values]) => {
    let path = "";
    let pen = "M";
    for (const k of thinned(shown, values, 1500)) {
      if (!usable(values[k])) { pen = "M"; continue; }
      path += `${pen}${across(data.x[k]).toFixed(1)} ${up(values[k]).toFixed(1)}`;
      pen = "L";
    }
    if (path) parts.push(stroke(path, ink, ink === "rest" ? 0.6 : name === data.lines[0][0] ? 1.4 : 1));
  });
  svg.replaceChildren(...parts, chart.cursor);
}
function redraw() {
  shared.charts.forEach((chart) => { chart.hide(); drawn(chart); });
  all(".whole").forEach((button) => { button.hidden = !shared.range; });
}
function zoom(range) {
  const dated = shared.charts.filter((chart) => chart.data.dates);
  const least = Math.min(...dated.map((chart) => chart.data.span[0]));
  const most = Math.max(...dated.map((chart) => chart.data.span[1]));
  const [low, high] = range ? [Math.max(range[0], least), Math.min(range[1], most)] : [least, most];
  shared.range = range && (low > least || high < most) && high > low ? [low, high] : null;
  redraw();
}

// One figure

function readable(svg, data) {
  const plot = svg.parentElement;
  const chart = { svg, data, own: [...svg.childNodes], log: data.log, view: data.span, lines: data.lines };
  shared.charts.push(chart);
  chart.cursor = node("line", { class: "cursor", y1: TOP, y2: svg.viewBox.baseVal.height - BOTTOM });
  const chosen = node("rect", { class: "chosen", y: TOP, height: svg.viewBox.baseVal.height - TOP - BOTTOM });
  svg.append(chart.cursor);
  const box = make("div", { className: "reading", hidden: true });
  box.setAttribute("aria-live", "polite");
  plot.append(box);
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", data.dates ? "Values by the arrow keys; plus, minus and 0 zoom" : "Values by the arrow keys");
  let spot = data.x.length - 1;
  chart.hide = () => { box.hidden = true; chart.cursor.removeAttribute("x1"); };
  const show = (wanted) => {
    spot = Math.max(0, Math.min(data.x.length - 1, wanted));
    while (data.x[spot] < chart.view[0] && spot < data.x.length - 1) spot += 1;
    while (data.x[spot] > chart.view[1] && spot > 0) spot -= 1;
    const x = LEFT + ((data.x[spot] - chart.view[0]) / (chart.view[1] - chart.view[0])) * (RIGHT - LEFT);
    chart.cursor.setAttribute("x1", x);
    chart.cursor.setAttribute("x2", x);
    const rows = chart.lines.map(([name, ink, values]) => {
      const chip = make("i", { className: "chip" });
      chip.style.background = `var(--${ink})`;
      return make("div", {}, chip, make("bdi", {}, name), make("b", {}, written(values[spot], data.unit)));
    });
    box.replaceChildren(make("div", { className: "when" }, placeName(data, spot)), ...rows);
    box.hidden = false;
    const share = x / WIDE;
    box.style.left = share < 0.5 ? `calc(${100 * share}% + .75rem)` : "auto";
    box.style.right = share < 0.5 ? "auto" : `calc(${100 * (1 - share)}% + .75rem)`;
  };
  const placed = (event) => {
    const area = svg.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * WIDE;
    return chart.view[0] + ((x - LEFT) / (RIGHT - LEFT)) * (chart.view[1] - chart.view[0]);
  };
  const nearest = (target) => {
    let [low, high] = [0, data.x.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (data.x[middle] <= target) low = middle; else high = middle;
    }
    return target - data.x[low] < data.x[high] - target ? low : high;
  };
  let begun = null;  // where a drag began
  plot.addEventListener("pointerdown", (event) => {
    if (data.dates && event.button === 0) begun = placed(event);
  });
  plot.addEventListener("pointermove", (event) => {
    const at = placed(event);
    show(nearest(at));
    if (begun === null) return;
    const [a, b] = [begun, at].map((x) => LEFT + ((x - chart.view[0]) / (chart.view[1] - chart.view[0])) * (RIGHT - LEFT));
    chosen.setAttribute("x", Math.max(LEFT, Math.min(a, b)));
    chosen.setAttribute("width", Math.abs(b - a));
    svg.append(chosen);
  });
  const release = (event) => {
    chosen.remove();
    if (begun === null) return;
    const [low, high] = [begun, placed(event)].sort((a, b) => a - b);
    begun = null;
    if (high - low > 0.02 * (chart.view[1] - chart.view[0])) zoom([low, high]);
  };
  plot.addEventListener("pointerup", release);
  plot.addEventListener("pointerleave", () => { begun = null; chosen.remove(); chart.hide(); });
  plot.addEventListener("dblclick", () => zoom(null));
  plot.addEventListener("blur", chart.hide);
  plot.addEventListener("keydown", (event) => {
    const last = data.x.length - 1;
    const step = event.shiftKey ? 20 : 1;
    const next = { ArrowLeft: spot - step, ArrowRight: spot + step, Home: 0, End: last }[event.key];
    if (event.key === "Escape") chart.hide();
    const factor = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
    if (data.dates && factor) {
      const half = (factor * (chart.view[1] - chart.view[0])) / 2;
      zoom([data.x[spot] - half, data.x[spot] + half]);
      show(spot);
    }
    if (event.key === "0") zoom(null);
    if (next === undefined) return;
    event.preventDefault();
    show(next);
  });
  const bar = plot.previousElementSibling;
  const add = (words, label, action, className = "") => {
    const button = make("button", { type: "button", onclick: action, className }, words);
    button.setAttribute("aria-label", label);
    bar.prepend(button);
    return button;
  };
  const about = svg.getAttribute("aria-label").split(".")[0];
  if (data.dates) add("Whole span", `Whole span: ${about}`, () => zoom(null), "whole").hidden = true;
  if (data.log) {
    const scale = add("Linear", `Linear axis: ${about}`, () => {
      chart.log = !chart.log;
      scale.textContent = chart.log ? "Linear" : "Logarithmic";
      chart.hide();
      drawn(chart);
    });
    const years = (data.span[1] - data.span[0]) / 365.25;
    for (const count of [10, 5, 3, 1].filter((each) => each < 0.9 * years)) {
      const words = `${count} year${count > 1 ? "s" : ""}`;
      add(words, `Last ${words}: ${about}`, () => zoom([data.x.at(-1) - 365.25 * count, data.x.at(-1)]));
    }
  }
}
function toggles() {
  const names = new Set(shared.charts.flatMap(({ data }) => data.lines.map(([name]) => name)));
  all(".legend .name").forEach((place) => {
    const section = place.closest("section");
    const name = place.querySelector("bdi")?.textContent;
    const mine = shared.charts.some(({ svg, data }) => section.contains(svg) && data.lines.some((line) => line[0] === name));
    if (!names.has(name) || !mine) return;
    place.tabIndex = 0;
    place.setAttribute("role", "button");
    place.setAttribute("aria-pressed", "true");
    place.dataset.line = name;
    const flip = () => {
      if (shared.hidden.has(name)) shared.hidden.delete(name); else shared.hidden.add(name);
      all("[data-line]").filter((each) => each.dataset.line === name)
        .forEach((each) => each.setAttribute("aria-pressed", String(!shared.hidden.has(name))));
      redraw();
    };
    place.onclick = flip;
    place.onkeydown = (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); flip(); }
    };
  });
}
function plainData({ x, lines, ...rest }) {
  let at = 0;
  const places = x.map((step) => { at += step; return at / 1e4; });
  const full = lines.map(([name, ink, scale, steps]) => {
    let sum = 0;
    const digits = Math.max(0, -Math.round(Math.log10(scale)));
    return [name, ink, steps.map((step) => {
      if (step === null) return null;
      sum += step;
      return Number((sum * scale).toFixed(digits));
    })];
  });
  return { ...rest, x: places, lines: full };
}
if ("DecompressionStream" in window) {
  const figures = all(".plot > svg[data-readings]");
  Promise.all(figures.map((svg) => unpacked(svg.dataset.readings))).then((found) => {
    found.forEach((data, k) => readable(figures[k], plainData(data)));
    toggles();
    document.documentElement.dataset.ready = "";
  });
}
