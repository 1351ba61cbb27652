// Level, latency, load and memory, drawn as they change.

import { clock } from "./transcript.js";

const FLOOR_DB = -60;
const QUIET_DB = -45; // peaks below it for QUIET_S are worth a word
const QUIET_S = 4;
const CLIPPED_DB = -0.1;
const CLIPPED_BLOCKS = 3; // within COMPLAINT_MS
const COMPLAINT_MS = 4000;
const PEAK_HOLD_MS = 1200;
const TEXT_EVERY_MS = 300; // figures that change faster cannot be read, nor read out
const SPARK_VALUES = 60;
const SHOWN_VECTORS = 48;
const SVG = "http://www.w3.org/2000/svg";

/** A meter of peaks and energy in dB below full scale. */
export class LevelMeter {
  constructor({ meter, text, note }) {
    this.fill = meter.querySelector(".level-fill");
    this.mark = meter.querySelector(".level-peak");
    Object.assign(this, { meter, text, note });
    this.reset();
  }

  reset() {
    this.held = { db: FLOOR_DB, at: 0 };
    this.loudAt = performance.now();
    this.textAt = 0;
    this.loudest = 0;
    this.clippedAt = [];
    this.fill.style.transform = "scaleX(0)";
    this.mark.style.opacity = 0;
    delete this.meter.dataset.clipped;
    this.say("–", "no sound yet", FLOOR_DB);
    this.remark("");
  }

  /** peak, rms: of the last block, 1 is full scale. */
  show(peak, rms) {
    const now = performance.now();
    const [peak_db, rms_db] = [decibels(peak), decibels(rms)];
    if (peak_db >= this.held.db || now - this.held.at > PEAK_HOLD_MS) this.held = { db: peak_db, at: now };
    if (peak_db >= QUIET_DB) this.loudAt = now;
    if (peak_db >= CLIPPED_DB) this.clippedAt.push(now);
    this.clippedAt = this.clippedAt.filter((at) => now - at < COMPLAINT_MS);
    this.fill.style.transform = `scaleX(${share(rms_db)})`;
    this.mark.style.left = `calc(${100 * share(this.held.db)}% - 2px)`;
    this.mark.style.opacity = this.held.db > FLOOR_DB ? 1 : 0;
    this.meter.toggleAttribute("data-clipped", now - this.clippedAt.at(-1) < PEAK_HOLD_MS);
    this.loudest = Math.max(this.loudest, rms);
    if (now - this.textAt < TEXT_EVERY_MS) return;
    const db = Math.round(decibels(this.loudest));
    this.say(`${db} dB`.replace("-", "\u2212"), `${db} decibels`, db);
    this.remark(this.complaint(now));
    this.textAt = now;
    this.loudest = 0;
  }

  complaint(now) {
    if (this.clippedAt.length >= CLIPPED_BLOCKS) return "Too loud: the sound is cut off. Turn the microphone down.";
    if (now - this.loudAt > QUIET_S * 1000) return "Hardly any sound. Is the microphone muted, or unplugged?";
    return "";
  }

  say(text, spoken, db) {
    this.text.textContent = text;
    this.meter.setAttribute("aria-valuetext", spoken);
    this.meter.setAttribute("aria-valuenow", String(Math.round(db)));
  }

  remark(text) {
    this.note.textContent = text;
    this.note.hidden = text === "";
  }
}

/** A figure and its last values as a line; top: the value at the upper edge, more if values are larger. */
export class Gauge {
  constructor({ figure, line, top, format }) {
    Object.assign(this, { figure, top, format, line: line.querySelector("polyline") });
    this.reset();
  }

  reset() {
    this.values = [];
    this.figure.textContent = "–";
    this.line.setAttribute("points", "");
  }

  show(value) {
    this.values.push(value);
    if (this.values.length > SPARK_VALUES) this.values.shift();
    this.figure.textContent = this.format(value);
    const top = Math.max(this.top, ...this.values);
    const step = 100 / (SPARK_VALUES - 1);
    const first = SPARK_VALUES - this.values.length;
    const points = this.values.map((one, i) => `${((first + i) * step).toFixed(1)},${(27 - (25 * one) / top).toFixed(1)}`);
    this.line.setAttribute("points", points.join(" "));
  }
}

/** What became of each summary, by time: a merged one is joined by an arc to what it was merged into. */
export class MemoryTimeline {
  constructor({ svg, counts }) {
    Object.assign(this, { svg, counts });
    this.reset();
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  reset() {
    this.totals = { stored: 0, merged: 0, skipped: 0 };
    this.vectors = [];
    this.count();
    this.draw();
  }

  /** vector: {number, start, end, decision, similarity, into} and the totals, as the server sends it. */
  show({ stored, merged, skipped, ...vector }) {
    const kind = { store: "stored", pin: "stored", merge: "merged", skip: "skipped" }[vector.decision];
    this.totals = { stored, merged, skipped };
    this.vectors.push({ ...vector, kind });
    if (this.vectors.length > SHOWN_VECTORS) this.vectors.shift();
    this.count();
    this.draw();
  }

  count() {
    for (const [kind, total] of Object.entries(this.totals)) this.counts[kind].textContent = total;
    const { stored, merged, skipped } = this.totals;
    const text = `Vectors of this stream: ${stored} stored, ${merged} merged into earlier ones, ${skipped} skipped`;
    this.svg.setAttribute("aria-label", stored + merged + skipped ? text : "No vectors yet");
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!width) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const base = height - 10;
    const step = width / SHOWN_VECTORS;
    const last = this.vectors.at(-1)?.number ?? 0;
    const at = (number) => width - (last - number + 0.5) * step;
    const axis = element("line", { class: "axis", x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 });
    const marks = this.vectors.map((vector) => mark(vector, at, base, step));
    this.svg.replaceChildren(axis, ...marks);
  }
}

function mark({ kind, number, into, start, end, similarity }, at, base, step) {
  const x = at(number);
  const width = Math.min(5, step * 0.62);
  const group = element("g", {});
  const title = element("title", {});
  const where = kind === "merged" ? ` into one of ${clock((end - start) * into)}, cosine ${similarity.toFixed(2)}` : "";
  title.textContent = `${clock(start)} to ${clock(end)}: ${kind}${where}`;
  group.append(title);
  if (kind === "skipped") {
    group.append(element("circle", { class: kind, cx: x, cy: base - 4, r: width / 2 }));
    return group;
  }
  if (kind === "merged") group.append(arc(at(into), x, base - 9));
  const tall = kind === "merged" ? 8 : 15;
  group.append(element("rect", { class: kind, x: x - width / 2, y: base - tall, width, height: tall, rx: 1 }));
  return group;
}

function arc(from, to, y) {
  const half = (to - from) / 2;
  const rise = Math.min(y - 2, 5 + half / 2);
  return element("path", { class: "arc", d: `M${from} ${y}A${half} ${rise} 0 0 1 ${to} ${y}` });
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function decibels(amplitude) {
  return Math.max(FLOOR_DB, 20 * Math.log10(Math.max(amplitude, 1e-6)));
}

function share(db) {
  return Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
}
