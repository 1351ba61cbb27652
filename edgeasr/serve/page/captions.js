// The words on the page: finished lines are added once to a log that screen readers follow; the open one is rewritten
// outside of it, so that nothing is read out twice.

import { clock } from "./transcript.js";

const UNSURE = 0.35; // confidence below which a word is dotted: every eleventh of the dev set, twice as often wrong
const MAX_LINES = 1000; // on the page; the transcript holds more
const AT_END_PX = 48;

export class Captions {
  constructor({ scroller, finals, partial, welcome, latest }) {
    Object.assign(this, { scroller, finals, partial, welcome, latest });
    this.following = true;
    this.frame = null; // the one that is asked for
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.follow()).observe(scroller);
    latest.addEventListener("click", () => {
      this.following = true;
      this.follow();
      scroller.focus();
    });
  }

  /** The open segment. event: as the server sends it; start: in seconds of the page's transcript. */
  showPartial({ words, stable }, start) {
    this.begin();
    this.partial.replaceChildren(stamp(start), spoken(words, stable));
    this.partial.hidden = words.length === 0;
    this.follow();
  }

  addFinal({ words }, start) {
    this.dropPartial();
    this.append(stamp(start), spoken(words));
  }

  /** A line about the sound, not of it. */
  addRemark(text) {
    const remark = document.createElement("span");
    remark.className = "gap";
    remark.textContent = text;
    this.append(remark);
  }

  dropPartial() {
    this.partial.hidden = true;
    this.partial.replaceChildren();
  }

  /** Empty the page; returns the lines, for restore(). */
  clear() {
    const lines = [...this.finals.children];
    this.finals.replaceChildren();
    this.dropPartial();
    this.welcome.hidden = false;
    return lines;
  }

  restore(lines) {
    this.finals.prepend(...lines);
    this.begin();
    this.follow();
  }

  begin() {
    this.welcome.hidden = true;
  }

  append(...content) {
    this.begin();
    const line = document.createElement("p");
    line.className = "line";
    line.append(...content);
    this.finals.append(line);
    if (this.finals.childElementCount > MAX_LINES) this.finals.firstElementChild.remove();
    this.follow();
  }

  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.scroller;
    this.following = scrollTop + clientHeight >= scrollHeight - AT_END_PX;
    this.latest.hidden = this.following;
  }

  /** Once a frame at most: where the end is, is known only after a layout. */
  follow() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
      else this.latest.hidden = false;
    });
  }
}

function stamp(seconds) {
  const time = document.createElement("time");
  time.textContent = clock(seconds);
  return time;
}

/** Words as text; stable: length in characters of the part that will not change, all of it without one. */
function spoken(words, stable = Infinity) {
  const line = document.createElement("span");
  const tail = document.createElement("span");
  tail.className = "tail";
  let length = 0;
  for (const { word, conf } of words) {
    const end = length + word.length;
    const part = end <= stable ? line : tail;
    if (length > 0) part.append(" ");
    part.append(conf < UNSURE ? unsure(word, conf) : word);
    length = end + 1;
  }
  if (tail.hasChildNodes()) line.append(tail);
  return line;
}

function unsure(word, conf) {
  const span = document.createElement("span");
  span.className = "unsure";
  span.title = `heard with a confidence of ${conf.toFixed(2)}`;
  span.textContent = word;
  return span;
}
