// Folding, sorting, exports, decisions by date. The page is whole without it.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
const textOf = (node) => [...node.childNodes]
  .map((child) => (child.nodeName === "BR" ? " " : child.textContent)).join("")
  .replace(/\s+/g, " ").trim();

function download(name, type, content) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function tools(place, label, actions) {
  const bar = make("div", { className: "tools" });
  for (const [name, action] of Object.entries(actions)) {
    const button = make("button", { type: "button", onclick: action }, name);
    button.setAttribute("aria-label", `${name}: ${label}`);
    bar.append(button);
  }
  place.before(bar);
}

// Sections

const sections = all("section > details");
const unfold = (id) => {
  const details = document.getElementById(id)?.querySelector(":scope > details");
  if (details) details.open = true;
};
all("nav a").forEach((link) => link.addEventListener("click", () => unfold(link.hash.slice(1))));
unfold(location.hash.slice(1));
const folding = make("button", { type: "button", className: "fold" }, "Fold all");
folding.onclick = () => {
  const open = folding.textContent === "Unfold all";
  sections.forEach((details) => { details.open = open; });
  folding.textContent = open ? "Fold all" : "Unfold all";
};
document.querySelector("nav").append(folding);
let closed = [];
addEventListener("beforeprint", () => {
  closed = all("details:not([open]):not(.screen)");
  closed.forEach((details) => { details.open = true; });
});
addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));

// Tables

const plain = (text) => (text === "\u2013" ? "" : text.replaceAll("\u2212", "-"));
function sortKey(cell) {
  const text = plain(textOf(cell));
  if (/^\d{4}-\d\d-\d\d/.test(text)) return text;
  const number = text.replaceAll(",", "").match(/^-?\d+(\.\d+)?(e-?\d+)?/);
  return number ? parseFloat(number[0]) : text;
}
function compare(one, two, sign) {
  if (one === "" || two === "") return (one === "") - (two === "");  // what is undefined, last
  if (typeof one === "number" && typeof two === "number") return sign * (one - two);
  return sign * String(one).localeCompare(String(two));
}
function sortable(table) {
  const heads = all("thead tr:last-child th", table);
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
      rows.sort(([one], [two]) => compare(one, two, sign));
      body.append(...rows.map(([, row]) => row));
    };
  });
}
function filterable(region, table, label) {
  const field = make("input", { type: "search", placeholder: "Filter rows" });
  field.setAttribute("aria-label", `Filter: ${label}`);
  field.oninput = () => {
    const words = field.value.toLowerCase().split(/\s+/);
    [...table.tBodies[0].rows].forEach((row) => {
      const text = textOf(row).toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
  };
  region.previousElementSibling.prepend(field);
}
function asCsv(table) {
  const field = (cell) => {
    let text = plain(textOf(cell));
    if (/^[=+@\t\r\uff1d\uff0b\uff0d\uff20]/.test(text) || /^-(?![\d.])/.test(text)) text = `'${text}`;  // no formulas
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return all("tr:not([hidden])", table).map((row) => [...row.cells].map(field).join(",")).join("\r\n") + "\r\n";
}
all(".scroll > table").forEach((table) => {
  const region = table.parentElement;
  const label = region.getAttribute("aria-label");
  const section = table.closest("section");
  const name = `${section.id}-${all(".scroll > table", section).indexOf(table) + 1}.csv`;
  tools(region, label, { CSV: () => download(name, "text/csv;charset=utf-8", "\ufeff" + asCsv(table)) });
  if (!table.matches(".heat, .fixed")) sortable(table);
  if (table.matches(".filtered")) filterable(region, table, label);
});

// Decisions: a date for all strategies; each shows its last decision up to it

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
function decisions(place) {
  const dates = JSON.parse(place.dataset.dates);
  const blocks = JSON.parse(place.dataset.blocks);
  const size = Number(place.dataset.size);
  const table = place.querySelector("table");
  let asked = 0;
  async function show(date) {
    const own = ++asked;
    let spot = dates.length - 1;
    while (spot > 0 && dates[spot] > date) spot -= 1;
    const block = Math.floor(spot / size);
    if (typeof blocks[block] === "string") blocks[block] = unpacked(blocks[block]);
    const { facts, rows } = (await blocks[block])[spot % size];
    if (own !== asked) return;  // another date was picked meanwhile
    place.querySelector(".facts").replaceChildren(make("b", {}, dates[spot]), `. ${facts.join(" ")}`);
    all("[aria-sort]", table).forEach((head) => head.removeAttribute("aria-sort"));
    table.tBodies[0].replaceChildren(...rows.map(([name, ...texts]) => {
      const cells = texts.map((text) => make("td", {}, text));
      cells.at(-1).className = "left";
      return make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, name)), ...cells);
    }));
  }
  return { dates, show };
}
const decided = all(".decision").map(decisions);
if (decided.length && "DecompressionStream" in window) {
  const { dates } = decided[0];
  const last = dates.length - 1;
  const slider = make("input", { type: "range", min: 0, max: last, value: last });
  const field = make("input", { type: "date", min: dates[0].slice(0, 10), max: dates[last].slice(0, 10), value: dates[last].slice(0, 10) });
  slider.setAttribute("aria-label", "Decision");
  field.setAttribute("aria-label", "Date");
  const pick = (spot) => {
    const at = Math.max(0, Math.min(last, spot));
    slider.value = at;
    slider.setAttribute("aria-valuetext", dates[at]);
    field.value = dates[at].slice(0, 10);
    decided.forEach(({ show }) => show(dates[at]));
  };
  slider.oninput = () => pick(Number(slider.value));
  field.onchange = () => {
    if (!field.value) return;
    const later = dates.findIndex((date) => date.slice(0, 10) > field.value);
    pick(later < 0 ? last : later - 1);
  };
  const step = (words, by) => {
    const button = make("button", { type: "button", onclick: () => pick(Number(slider.value) + by) }, words);
    return button;
  };
  const bar = make("div", { className: "picker" }, step("Earlier", -1), slider, step("Later", 1), field);
  all("#why .picking").forEach((words) => { words.hidden = false; });
  document.querySelector(".decision").before(bar);
  pick(last);
}

// Figures

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SVG = "http://www.w3.org/2000/svg";
function standalone(svg) {
  const copy = svg.cloneNode(true);
  all(".cursor, .chosen", copy).forEach((node) => node.remove());
  delete copy.dataset.readings;
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const text = (x, y, words, ink) => {
    const node = document.createElementNS(SVG, "text");
    node.setAttribute("x", x);
    node.setAttribute("y", y);
    node.setAttribute("fill", ink);
    node.textContent = words;
    return node;
  };
  const rows = [];
  let x = 10;
  let y = -10;
  for (const name of all(".legend .name", svg.closest("section"))) {
    const words = textOf(name).slice(0, 60);
    const chip = document.createElementNS(SVG, "rect");
    if (x > 10 && x + words.length * 6.5 + 30 > width) [x, y] = [10, y - 17];
    for (const [key, value] of Object.entries({ x, y: y - 8, width: 8, height: 8 })) chip.setAttribute(key, value);
    chip.setAttribute("fill", getComputedStyle(name.querySelector(".chip")).backgroundColor);
    rows.push(chip, text(x + 13, y, words, colour("--ink")));
    x += words.length * 6.5 + 30;
  }
  const top = rows.length ? y - 20 : 0;
  const ground = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x: 0, y: top, width, height: height - top })) ground.setAttribute(key, value);
  ground.setAttribute("fill", colour("--page"));
  all("text", copy).forEach((node) => node.setAttribute("fill", colour("--muted")));
  copy.prepend(ground);
  copy.append(...rows);
  copy.setAttribute("viewBox", `0 ${top} ${width} ${height - top}`);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height - top);
  copy.setAttribute("font-family", "system-ui, sans-serif");
  copy.setAttribute("font-size", "10.5");
  const source = new XMLSerializer().serializeToString(copy);
  return [source.replace(/var\((--[\w-]+)\)/g, (_, name) => colour(name)), width, height - top];
}
function asPng(svg, name) {
  const [source, width, height] = standalone(svg);
  const image = new Image();
  image.onload = () => {
    const canvas = make("canvas", { width: 2 * width, height: 2 * height });
    canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
    canvas.toBlob((blob) => download(name, "image/png", blob));
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(source);
}
all(".plot > svg").forEach((svg, number) => {
  const name = `${svg.closest("section").id}-${number + 1}`;
  tools(svg.parentElement, svg.getAttribute("aria-label").split(".")[0], {
    SVG: () => download(`${name}.svg`, "image/svg+xml", standalone(svg)[0]),
    PNG: () => asPng(svg, `${name}.png`),
  });
});
