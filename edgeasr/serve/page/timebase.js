// Times: those of a stream begin with it, those of the page's transcript with its first stream.

const KEPT_BLOCKS = 1500; // a minute

export class Timebase {
  constructor() {
    this.epoch = null; // when the page's time was 0, by performance.now()
    this.offset = 0; // from the stream's time to the page's
    this.stream = null;
    this.lastSegment = -1;
    this.captured_s = 0; // by the browser's microphone, while this page is open
    this.zero_s = 0; // of them when the stream began
    this.blocks = [];
  }

  /** A stream began, or is watched, and its time is stream_s now; one that is known goes on where it was. */
  began(stream, stream_s) {
    this.zero_s = this.captured_s - stream_s;
    if (stream === this.stream) return;
    this.stream = stream;
    this.lastSegment = -1;
    const now = performance.now();
    this.epoch ??= now - 1000 * stream_s;
    this.offset = (now - this.epoch) / 1000 - stream_s;
  }

  page(stream_s) {
    return stream_s + this.offset;
  }

  /** Whether a final of this number was not there yet: who watches again is told of the last ones again. */
  isNew(segment) {
    if (segment <= this.lastSegment) return false;
    this.lastSegment = segment;
    return true;
  }

  /** The browser's microphone is closed: what is heard from now on was captured elsewhere. */
  silent() {
    this.blocks = [];
  }

  /** The browser's microphone gave so many seconds, just now. */
  captured(seconds) {
    this.captured_s += seconds;
    this.blocks.push({ until_s: this.captured_s, at: performance.now() });
    if (this.blocks.length > KEPT_BLOCKS) this.blocks.shift();
  }

  /** How long ago what is at stream_s was captured; null where it was not captured here. */
  latency_ms(stream_s) {
    const block = this.blocks.find(({ until_s }) => until_s >= this.zero_s + stream_s);
    return block ? performance.now() - block.at : null;
  }
}
