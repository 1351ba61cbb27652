// On the audio thread: all channels mixed down to 16-bit samples, a block at a time, with its level.

class PcmWorklet extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.blockLength = processorOptions.blockLength;
    this.begin();
  }

  begin() {
    this.block = new Int16Array(this.blockLength);
    this.length = 0;
    this.peak = 0;
    this.energy = 0;
  }

  process([channels]) {
    if (channels.length === 0) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sample = 0;
      for (const channel of channels) sample += channel[i];
      this.take(sample / channels.length);
    }
    return true;
  }

  take(sample) {
    const clamped = Math.max(-1, Math.min(1, sample));
    this.block[this.length++] = Math.round(clamped * 32767);
    this.peak = Math.max(this.peak, Math.abs(clamped));
    this.energy += clamped * clamped;
    if (this.length < this.blockLength) return;
    const rms = Math.sqrt(this.energy / this.blockLength);
    this.port.postMessage({ pcm: this.block, peak: this.peak, rms }, [this.block.buffer]);
    this.begin();
  }
}

registerProcessor("pcm", PcmWorklet);
