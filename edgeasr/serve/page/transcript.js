// What was said, and the files that it is saved as. The server cuts the cues; here they are only written down.

const MAX_SEGMENTS = 20000;

export class Transcript {
  constructor() {
    this.clear();
  }

  /** Empty it; returns what it held, for restore(). */
  clear() {
    const held = this.segments ?? [];
    this.segments = [];
    return held;
  }

  restore(segments) {
    this.segments = segments.concat(this.segments);
  }

  /** A finished segment: {start, text, cues: [{start, end, text}]}, times in seconds of this page's transcript. */
  add(segment) {
    this.segments.push(segment);
    if (this.segments.length > MAX_SEGMENTS) this.segments.shift();
  }

  get empty() {
    return this.segments.length === 0;
  }

  as(format) {
    return { txt: () => this.text(), srt: () => this.srt(), vtt: () => this.vtt() }[format]();
  }

  text() {
    return this.segments.map(({ text }) => `${text}\n`).join("");
  }

  srt() {
    const cues = this.segments.flatMap(({ cues }) => cues);
    return cues.map((cue, i) => `${i + 1}\n${span(cue, ",")}\n${cue.text}\n\n`).join("");
  }

  vtt() {
    const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
    const cues = this.segments.flatMap(({ cues }) => cues);
    return `WEBVTT\n\n${cues.map((cue) => `${span(cue, ".")}\n${escaped(cue.text)}\n\n`).join("")}`;
  }
}

/** 75 as "1:15", 3675 as "1:01:15". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

function span(cue, mark) {
  return `${cueClock(cue.start, mark)} --> ${cueClock(cue.end, mark)}`;
}

function cueClock(seconds, mark) {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const part = (unit, base, width) => String(Math.floor(ms / unit) % base).padStart(width, "0");
  return `${part(3600000, 1e6, 2)}:${part(60000, 60, 2)}:${part(1000, 60, 2)}${mark}${part(1, 1000, 3)}`;
}
