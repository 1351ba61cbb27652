// The web socket /live: opened again when it is lost, with what was heard meanwhile, as far as QUEUE_S reaches.

const QUEUE_S = 10;
const UNSENT_S = 2; // in the browser's own buffer, beyond which the network counts as slow
const RETRY_S = [1, 2, 4, 8, 15];
const ENDING_MS = 8000;
const OPENING_MS = 8000;
const HERE_EVERY_MS = 15000;

/** Sound that waits for the server; what finds no room is lost oldest first, and counted. */
class SoundQueue {
  constructor(rate) {
    this.rate = rate;
    this.room = Math.round(rate * QUEUE_S);
    this.clear();
  }

  clear() {
    this.blocks = [];
    this.held = 0;
    this.lost = 0; // samples, just before blocks[0]
  }

  put(pcm) {
    this.blocks.push(pcm);
    this.held += pcm.length;
    while (this.held > this.room) {
      const dropped = this.blocks.shift().length;
      this.held -= dropped;
      this.lost += dropped;
    }
  }

  /** Seconds that wait, lost ones too. */
  get waiting_s() {
    return (this.held + this.lost) / this.rate;
  }

  /** What was lost before the next block, and that block. */
  take() {
    const lost = this.lost;
    this.lost = 0;
    const pcm = this.blocks.shift();
    this.held -= pcm.length;
    return { lost, pcm };
  }
}

/**
 * One listening from start() to its end.
 *
 * on.message(message): what the server said, as an object; {type: "broken"} where a connection that served was lost
 * on.state(name, seconds): "connecting", "listening", "waiting" (for so many seconds, to try again), "stopping", "idle"
 * on.refused(code, text): the server said that it will not do this; the state is idle then
 * on.lost(seconds): sound that was not sent, because the connection was away or too slow
 */
export class Connection {
  constructor(on) {
    this.on = on;
    this.socket = null;
    this.started = false;
  }

  /** source: "browser" or "device"; rate: of the browser's sound in Hz; token: null where none is known. */
  start({ source, rate, token }) {
    this.request = { type: "start", source, ...(source === "browser" && { rate }) };
    this.rate = rate;
    this.token = token;
    this.queue = rate ? new SoundQueue(rate) : null;
    this.attempt = 0;
    this.saidHere = 0;
    this.ending = false;
    this.connect();
  }

  /** Samples of the browser's microphone. */
  send(pcm) {
    if (!this.queue || this.ending) return;
    this.queue.put(pcm);
    this.flush();
  }

  /** No more sound comes: the last words do, then the state is idle. */
  stop() {
    this.ending = true;
    if (!this.started) {
      this.finish();
      return;
    }
    this.on.state("stopping");
    this.flush({ all: true });
    this.say({ type: "stop" });
    this.timer = setTimeout(() => this.finish(), ENDING_MS);
  }

  connect() {
    this.on.state("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/live`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.started = false;
    socket.onopen = () => this.say({ type: "hello", ...(this.token && { token: this.token }) });
    socket.onmessage = ({ data }) => this.socket === socket && this.hear(JSON.parse(data));
    socket.onclose = () => this.socket === socket && this.closed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => socket.close(), OPENING_MS); // an address that swallows what is sent to it
  }

  hear(message) {
    if (message.type === "welcome") {
      this.on.message(message);
      this.say(this.request);
    } else if (message.type === "started") {
      clearTimeout(this.timer);
      this.started = true;
      this.attempt = 0;
      this.on.state("listening");
      this.on.message(this.queue ? { ...message, stream_s: this.queue.waiting_s } : message);
      this.flush();
    } else if (message.type === "error") {
      const { on } = this;
      this.finish();
      on.refused(message.code, message.text);
    } else {
      this.on.message(message);
      const goes = message.type === "ended" && message.reason === "stopping" && !this.ending;
      if (message.type === "ended" && !goes) this.finish(); // one that stops may come back: it is waited for
      else if (!this.queue) this.sayHere();
    }
  }

  closed() {
    clearTimeout(this.timer);
    if (this.ending) {
      this.finish();
      return;
    }
    if (this.started) this.on.message({ type: "broken" });
    this.started = false;
    const wait_s = RETRY_S[Math.min(this.attempt++, RETRY_S.length - 1)];
    this.on.state("waiting", wait_s);
    this.timer = setTimeout(() => this.connect(), wait_s * 1000);
  }

  finish() {
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    this.started = false;
    this.queue?.clear();
    socket?.close();
    this.on.state("idle");
  }

  flush({ all = false } = {}) {
    const mayWait = all ? Infinity : this.rate * 2 * UNSENT_S; // bytes
    const ready = () => this.started && this.socket.readyState === WebSocket.OPEN && this.socket.bufferedAmount < mayWait;
    while (this.queue?.blocks.length && ready()) {
      const { lost, pcm } = this.queue.take();
      if (lost) {
        this.say({ type: "gap", samples: lost });
        this.on.lost(lost / this.rate);
      }
      this.socket.send(pcm);
    }
  }

  /** Who only watches says nothing else. Not by a timer: browsers slow those of pages in the background. */
  sayHere() {
    if (performance.now() - this.saidHere < HERE_EVERY_MS) return;
    this.saidHere = performance.now();
    this.say({ type: "here" });
  }

  say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}
