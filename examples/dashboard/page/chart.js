// A chart of values over time, as SVG: sharp on any screen, coloured by the style sheet, read out by arrow keys.

const SVG = "http://www.w3.org/2000/svg";
/** Room for what is written below the lines and above them, and for the dot at their end, in pixels. */
const BELOW = 20;
const ABOVE = 16;
const BESIDE = 5;
/** Lines across. */
const TICKS = 2;
/** Readings without a value after which none is expected. */
const ENOUGH = 2;

function svg(name, parent, attributes = {}) {
  const element = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** The next round number, of bytes in units of 1024. */
function roundUp(value, base) {
  if (!(value > 0)) return 1;
  const unit = base === 1024 ? 1024 ** Math.max(0, Math.floor(Math.log(value) / Math.log(1024))) : 1;
  const power = 10 ** Math.floor(Math.log10(value / unit));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((one) => one * power * unit >= value);
  return step * power * unit;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function ago(seconds) {
  if (seconds === 0) return "now";
  if (seconds < 60) return `−${seconds} s`;
  return `−${Math.floor(seconds / 60)}${seconds % 60 === 30 ? "½" : ""} min`;
}

export class Chart {
  #options;
  #article;
  #plot;
  #svg;
  #tip;
  #spoken;
  #parts;
  #readings = [];
  #span = 300;
  #cursor = null;
  #missing = null;
  #size = { width: 0, height: 0 };

  /**
   * `options`: `title`; `pick(reading)`, the values of its lines, or nothing; `names` of the lines; `format(value)` in
   * words; `headline(reading)`, `[number, unit]`; `detail(reading)`, a text, or one for each line; `top` of the scale, which
   * otherwise follows the values: in round numbers, of `base` 1024 for bytes, and not below `least`.
   */
  constructor(parent, options) {
    this.#options = options;
    const template = document.getElementById("chart").content.cloneNode(true);
    const article = template.querySelector("article");
    article.dataset.chart = options.id;
    article.querySelector("h3").textContent = options.title;
    this.#article = article;
    this.#plot = article.querySelector(".plot");
    this.#svg = article.querySelector("svg");
    this.#tip = article.querySelector(".tip");
    this.#spoken = article.querySelector("[aria-live]");
    this.#parts = this.#prepare(options.names.length);
    parent.append(template);
    this.#plot.setAttribute("aria-label", `${options.title}: no readings yet`);
    this.#plot.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.#plot.addEventListener("pointerleave", () => this.#put(null));
    this.#plot.addEventListener("blur", () => this.#put(null));
    this.#plot.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(([entry]) => {
      this.#size = { width: entry.contentRect.width, height: entry.contentRect.height };
      this.#draw();
    }).observe(this.#plot);
  }

  /** Shows readings, of the last `span` seconds. */
  show(readings, span) {
    this.#readings = readings;
    this.#span = span;
    const latest = readings.at(-1);
    const nothing = readings.length > ENOUGH ? "This machine does not tell" : "Waiting for readings";
    this.#plot.querySelector(".empty").textContent = this.#missing ?? nothing;
    const [number, unit] = (latest && this.#options.headline(latest)) || ["–", ""];
    this.#article.querySelector(".number").textContent = number;
    this.#article.querySelector(".unit").textContent = unit;
    const detail = (latest && this.#options.detail(latest)) || "";
    this.#article.querySelector(".detail").replaceChildren(...(Array.isArray(detail) ? this.#legend(detail) : [detail]));
    this.#draw();
  }

  /** Says that there is nothing to be shown, and why. */
  setMissing(text) {
    this.#missing = text;
    this.#article.classList.toggle("missing", text !== null);
    this.#plot.tabIndex = text === null ? 0 : -1;
  }

  #legend(texts) {
    return texts.map((text, line) => {
      if (!text) return "";
      const item = document.createElement("span");
      item.className = `legend line-${line}`;
      item.textContent = text;
      return item;
    });
  }

  #prepare(count) {
    const grid = svg("g", this.#svg, { class: "grid" });
    const lines = Array.from({ length: TICKS + 1 }, () => svg("line", grid));
    const times = ["start", "middle", "end"].map((anchor) => svg("text", grid, { "text-anchor": anchor }));
    const area = svg("path", this.#svg, { class: "area line-0" });
    const paths = [];
    // The first line is on top.
    for (let i = count - 1; i >= 0; i -= 1) paths[i] = svg("path", this.#svg, { class: `line line-${i}` });
    const scale = svg("g", this.#svg, { class: "grid" });
    const labels = Array.from({ length: TICKS + 1 }, () => svg("text", scale));
    const rule = svg("line", this.#svg, { class: "rule" });
    const dots = [];
    for (let i = count - 1; i >= 0; i -= 1) dots[i] = svg("circle", this.#svg, { class: `dot line-${i}`, r: 3.5 });
    return { lines, labels, times, area, paths, rule, dots };
  }

  /** The readings that are seen, as points: those that have a value, with places on the screen. */
  #points() {
    const latest = this.#readings.at(-1)?.at ?? 0;
    const first = latest - this.#span;
    const width = this.#size.width - BESIDE;
    const points = [];
    for (const reading of this.#readings) {
      if (reading.at < first - reading.every) continue;
      const values = this.#options.pick(reading);
      if (values) points.push({ reading, values, x: ((reading.at - first) / this.#span) * width });
    }
    return points;
  }

  #scale(points) {
    const { top, base, least = 1 } = this.#options;
    const highest = Math.max(0, ...points.flatMap(({ values }) => values.filter((value) => value !== undefined)));
    const most = typeof top === "function" ? top(points.at(-1)?.reading) : top;
    return most ?? roundUp(Math.max(highest * 1.05, least), base);
  }

  #draw() {
    const { width, height } = this.#size;
    if (width === 0) return;
    const points = this.#points();
    this.#plot.classList.toggle("waiting", points.length === 0);
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const top = this.#scale(points);
    const floor = height - BELOW;
    const place = (value) => floor - (Math.min(value, top) / top) * (floor - ABOVE);
    this.#drawGrid(width, height, top, place);
    this.#drawLines(points, floor, place);
    this.#drawCursor(points, place);
    if (document.activeElement !== this.#plot) this.#describe(points);
  }

  #drawGrid(width, height, top, place) {
    const { lines, labels, times } = this.#parts;
    for (let i = 0; i <= TICKS; i += 1) {
      const value = (top * i) / TICKS;
      const y = Math.round(place(value)) + 0.5;
      for (const [key, at] of [["x1", 0], ["x2", width], ["y1", y], ["y2", y]]) lines[i].setAttribute(key, at);
      labels[i].setAttribute("x", 0);
      labels[i].setAttribute("y", y - 4);
      labels[i].textContent = i === 0 ? "" : this.#options.format(value);
    }
    times.forEach((text, i) => {
      text.setAttribute("x", (width * i) / 2);
      text.setAttribute("y", height - 4);
      text.textContent = ago(this.#span - (this.#span * i) / 2);
    });
  }

  #drawLines(points, floor, place) {
    const { paths, area, dots } = this.#parts;
    paths.forEach((path, line) => {
      let text = "";
      let filled = "";
      let before = null;
      for (const { reading, values, x } of points) {
        const value = values[line];
        if (value === undefined) {
          before = null;
          continue;
        }
        // What was not read is not drawn.
        const together = before && reading.at - before.at <= 2.5 * reading.every + 1;
        const step = `${x.toFixed(1)} ${place(value).toFixed(1)}`;
        text += (together ? "L" : "M") + step;
        if (line === 0) filled += (together ? "L" : `${before ? `V${floor}Z` : ""}M${x.toFixed(1)} ${floor}L`) + step;
        before = reading;
      }
      path.setAttribute("d", text);
      if (line === 0) area.setAttribute("d", filled && `${filled}V${floor}Z`);
      const end = points.at(-1);
      const shown = this.#cursor === null && end?.values[line] !== undefined;
      dots[line].toggleAttribute("hidden", !shown);
      if (shown) this.#dot(line, end.x, place(end.values[line]));
    });
  }

  #dot(line, x, y) {
    this.#parts.dots[line].setAttribute("cx", x);
    this.#parts.dots[line].setAttribute("cy", y);
  }

  // The cursor

  #drawCursor(points, place) {
    const { rule, dots } = this.#parts;
    const point = points.find(({ reading }) => reading.at === this.#cursor);
    rule.toggleAttribute("hidden", !point);
    this.#tip.hidden = !point;
    if (!point) return;
    const { height, width } = this.#size;
    for (const [key, at] of [["x1", point.x], ["x2", point.x], ["y1", ABOVE], ["y2", height - BELOW]]) {
      rule.setAttribute(key, at);
    }
    point.values.forEach((value, line) => {
      dots[line].toggleAttribute("hidden", value === undefined);
      if (value !== undefined) this.#dot(line, point.x, place(value));
    });
    this.#tip.textContent = this.#words(point);
    const half = this.#tip.offsetWidth / 2;
    this.#tip.style.left = `${Math.max(half, Math.min(width - half, point.x))}px`;
  }

  #words({ reading, values }) {
    const { names, format } = this.#options;
    const texts = values.map((value, line) => {
      if (value === undefined) return null;
      const name = typeof names[line] === "function" ? names[line](reading) : names[line];
      return name ? `${name} ${format(value)}` : format(value);
    });
    return `${clock.format(reading.at * 1000)}  ${texts.filter(Boolean).join(" · ")}`;
  }

  #put(at) {
    if (at === this.#cursor) return;
    this.#cursor = at;
    this.#draw();
  }

  #point(x) {
    const points = this.#points();
    if (points.length === 0) return;
    const nearest = points.reduce((best, one) => (Math.abs(one.x - x) < Math.abs(best.x - x) ? one : best));
    this.#put(nearest.reading.at);
  }

  #key(event) {
    const points = this.#points();
    if (points.length === 0) return;
    const now = points.findIndex(({ reading }) => reading.at === this.#cursor);
    const last = points.length - 1;
    const at = { ArrowLeft: now < 0 ? last : now - 1, ArrowRight: now < 0 ? last : now + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") return this.#put(null);
    if (at === undefined) return;
    event.preventDefault();
    const point = points[Math.max(0, Math.min(last, at))];
    this.#put(point.reading.at);
    this.#spoken.textContent = this.#words(point);
  }

  /** For those who cannot see it. */
  #describe(points) {
    const { title, format } = this.#options;
    const values = points.map((point) => point.values[0]).filter((value) => value !== undefined);
    if (values.length === 0) return;
    const range = `lowest ${format(Math.min(...values))}, highest ${format(Math.max(...values))}`;
    this.#plot.setAttribute("aria-label", `${title}: ${format(values.at(-1))} now, ${range}. Arrow keys read it out.`);
  }
}
