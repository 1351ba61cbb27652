// The browser's microphone as blocks of 16-bit mono samples at its own rate.

const BLOCK_S = 0.04;

const REASONS = {
  NotAllowedError:
    "This page may not use the microphone. Allow it in the browser's settings for this site (beside the address), then press Start again.",
  NotFoundError: "This browser found no microphone. Plug one in, or choose the device's.",
  NotReadableError: "The microphone is held by another program. Close that, then press Start again.",
  AbortError: "The microphone could not be started. Press Start again.",
};

const INSECURE =
  "Browsers give their microphone only to pages from https or from this very machine. Choose the device's microphone, " +
  "start the server with a certificate, or open this page through a tunnel: " +
  `ssh -L ${location.port}:127.0.0.1:${location.port} ${location.hostname}, then http://127.0.0.1:${location.port}`;

/** Why a microphone cannot be used, in words for its user. */
export class MicrophoneError extends Error {}

/**
 * Open it; its blocks come to `onBlock({pcm, peak, rms})` until close().
 *
 * onGone: called when it is unplugged, or taken away by the browser
 * returns: {rate, close}, the rate in Hz
 */
export async function openMicrophone(onBlock, onGone) {
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new MicrophoneError(INSECURE);
  const stream = await permitted();
  const context = new AudioContext({ latencyHint: "interactive" });
  try {
    await context.audioWorklet.addModule("/page/pcm-worklet.js");
    await context.resume();
  } catch (error) {
    close(stream, context);
    throw new MicrophoneError(`The sound of this browser could not be started (${error.message}). Reload the page.`);
  }
  const node = new AudioWorkletNode(context, "pcm", {
    numberOfOutputs: 0,
    processorOptions: { blockLength: Math.round(context.sampleRate * BLOCK_S) },
  });
  node.port.onmessage = ({ data }) => onBlock(data);
  context.createMediaStreamSource(stream).connect(node);
  const [track] = stream.getAudioTracks();
  track.addEventListener("ended", onGone);
  return {
    rate: context.sampleRate,
    close() {
      track.removeEventListener("ended", onGone);
      node.port.onmessage = null;
      close(stream, context);
    },
  };
}

async function permitted() {
  // Made for calls, echo cancellation and noise suppression eat into speech that a recogniser would rather hear.
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new MicrophoneError(REASONS[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
}

function close(stream, context) {
  for (const track of stream.getTracks()) track.stop();
  context.close();
}
