// Times: those of a stream begin with it, those of the page's transcript with its first stream.

const KEPT_BLOCKS = 1500; // a minute

export class Timebase {
  constructor() {
    this.epoch = null; // when the page's time was 0, by performance.now()
    this.offset = 0; // from the stream's time to the page's
    this.stream = null;
    this.lastSegment = -1;
    this.live = false;
    this.forgetCaptured();
  }

  /** A stream began, or is watched from stream_s on; one that is known goes on where it was. */
  began(stream, stream_s) {
    this.live = true;
    if (stream === this.stream) return;
    this.stream = stream;
    this.lastSegment = -1;
    const now = performance.now();
    this.epoch ??= now - 1000 * stream_s;
    this.offset = (now - this.epoch) / 1000 - stream_s;
  }

  broke() {
    this.live = false;
    this.forgetCaptured();
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

  /** The browser's microphone gave so many seconds, just now. */
  captured(seconds) {
    this.captured_s += seconds;
    this.blocks.push({ until_s: this.captured_s, at: performance.now() });
    if (this.blocks.length > KEPT_BLOCKS) this.blocks.shift();
  }

  /** How long ago what was heard at heard_s was captured here; null where it was not captured here. */
  latency_ms(heard_s) {
    const block = this.blocks.find(({ until_s }) => until_s >= heard_s - 1e-6);
    return block ? performance.now() - block.at : null;
  }

  forgetCaptured() {
    this.captured_s = 0;
    this.blocks = [];
  }
}
