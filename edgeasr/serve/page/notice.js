// One message at a time, in words, with at most one thing to do about it.

const PASSING_MS = 4000;

export class Notice {
  constructor({ box, text, action, close }) {
    Object.assign(this, { box, text, action });
    close.addEventListener("click", () => this.hide());
    action.addEventListener("click", () => {
      this.run();
      this.hide();
    });
  }

  /** action, run: a button's name and what it does; passing: gone after a while by itself. */
  show(text, { action = "", run = () => {}, passing = false } = {}) {
    clearTimeout(this.timer);
    this.text.textContent = text;
    this.action.textContent = action;
    this.action.hidden = !action;
    this.run = run;
    this.box.hidden = false;
    if (passing) this.timer = setTimeout(() => this.hide(), PASSING_MS);
  }

  hide() {
    this.box.hidden = true;
  }
}
