// The page: what its buttons do, and where what the server says is shown.

import { Captions } from "./captions.js";
import { Connection } from "./connection.js";
import { Gauge, LevelMeter, MemoryTimeline } from "./instruments.js";
import { MicrophoneError, openMicrophone } from "./microphone.js";
import { Notice } from "./notice.js";
import { askForToken, chosenSource, forgetToken, keepAwake, knownToken, saveAs, themeButton } from "./page.js";
import { Timebase } from "./timebase.js";
import { Transcript } from "./transcript.js";

const byId = (id) => document.getElementById(id);

const transcript = new Transcript();
const timebase = new Timebase();
const notice = new Notice({ box: byId("notice"), text: byId("notice-text"), action: byId("notice-action"), close: byId("notice-close") });
const captions = new Captions({
  scroller: byId("captions"), finals: byId("finals"), partial: byId("partial"), welcome: byId("welcome"), latest: byId("latest"),
});
const level = new LevelMeter({ meter: byId("level"), text: byId("level-text"), note: byId("level-note") });
const latency = new Gauge({ figure: byId("latency"), line: byId("latency-line"), top: 400, format: (ms) => String(Math.round(ms)) });
const load = new Gauge({ figure: byId("rtf"), line: byId("rtf-line"), top: 0.1, format: (rtf) => rtf.toFixed(3) });
const memory = new MemoryTimeline({
  svg: byId("memory"), counts: { stored: byId("stored"), merged: byId("merged"), skipped: byId("skipped") },
});
const connection = new Connection({ message: hear, state: showState, refused, lost: lostSound });

const LOAD_NOTE = byId("rtf-note").textContent;

let microphone = null;
let releaseScreen = () => {};
let openSegment = null; // the partial that is on the page
let running = false;

async function start() {
  running = true;
  notice.hide();
  showState("connecting");
  level.reset();
  latency.reset();
  load.reset();
  timebase.silent();
  const source = chosenSource();
  if (source === "browser" && !(await openBrowserMicrophone())) return;
  if (!running) {
    closeMicrophone();
    return;
  }
  releaseScreen = keepAwake();
  connection.start({ source, rate: microphone?.rate, token: knownToken() });
}

async function openBrowserMicrophone() {
  try {
    microphone = await openMicrophone(heard, () => {
      notice.show("The microphone was unplugged or taken away. Plug it in, then press Start.");
      stop();
    });
    return true;
  } catch (error) {
    if (!(error instanceof MicrophoneError)) throw error;
    showState("idle");
    notice.show(error.message);
    return false;
  }
}

function heard({ pcm, peak, rms }) {
  level.show(peak, rms);
  timebase.captured(pcm.length / microphone.rate);
  connection.send(pcm);
}

function stop() {
  running = false;
  closeMicrophone();
  connection.stop();
}

function closeMicrophone() {
  microphone?.close();
  microphone = null;
}

function hear(message) {
  const told = {
    welcome, started, partial, final, rejected, status, broken, ended,
    memory: (vector) => memory.show(vector),
    level: ({ peak, rms }) => level.show(peak, rms),
  };
  told[message.type]?.(message);
}

function started(message) {
  notice.hide();
  timebase.began(message.stream, message.stream_s);
  memory.reset();
}

function welcome({ model }) {
  byId("model").textContent = model;
  byId("model").hidden = false;
}

function partial(event) {
  showLatency(event);
  openSegment = event;
  captions.showPartial(event, timebase.page(event.start));
}

function final(event) {
  if (!timebase.isNew(event.segment)) return;
  showLatency(event);
  openSegment = null;
  addLine(event);
}

/** What was said is no sentence of the grammar: it is taken back. */
function rejected() {
  openSegment = null;
  captions.dropPartial();
}

function addLine(event) {
  const start = timebase.page(event.start);
  const cues = event.cues.map((cue) => ({ ...cue, start: timebase.page(cue.start), end: timebase.page(cue.end) }));
  transcript.add({ start, text: event.text, cues });
  captions.addFinal(event, start);
  showTranscriptButtons();
}

/** Of a word that is new on the page: since it began to be spoken. */
function showLatency({ segment, words, latency_ms }) {
  const shown = openSegment?.segment === segment ? openSegment.words.length : 0;
  if (words.length > shown) latency.show(timebase.latency_ms(words.at(-1).start) ?? latency_ms);
}

function status({ rtf, waiting_s }) {
  load.show(rtf);
  byId("rtf-note").textContent = waiting_s > 1 ? `${waiting_s.toFixed(1)} s of sound wait` : LOAD_NOTE;
}

/** No final comes any more: what was heard of the open sentence stays as it is. */
function keepOpenSegment() {
  if (openSegment?.words.length) {
    const { start, end, text } = openSegment;
    addLine({ ...openSegment, cues: [{ start, end, text }] });
  }
  openSegment = null;
  captions.dropPartial();
}

function broken() {
  keepOpenSegment();
  captions.addRemark("The connection was lost here.");
}

function ended({ reason }) {
  keepOpenSegment();
  if (reason === "idle") notice.show("The server ended this: no sound came from this page for a while.");
}

async function refused(code, text) {
  keepOpenSegment();
  if (code !== "unauthorized") {
    notice.show(text);
    return;
  }
  const wrong = knownToken() !== null;
  forgetToken();
  if (await askForToken(wrong)) start();
}

function lostSound(seconds) {
  captions.addRemark(`${seconds.toFixed(1)} s of sound were lost: the connection was away, or too slow.`);
}

function showState(state, seconds) {
  const words = {
    idle: "Not listening",
    connecting: "Connecting",
    listening: "Listening",
    stopping: "Finishing",
    waiting: `Connection lost, trying again in ${seconds} s`,
  };
  byId("state").dataset.state = state;
  byId("state-text").textContent = words[state];
  const stopped = state === "idle";
  if (stopped) {
    running = false;
    closeMicrophone();
    releaseScreen();
    keepOpenSegment();
    level.reset();
  }
  byId("start").toggleAttribute("data-running", !stopped);
  byId("start").disabled = state === "stopping";
  byId("start-text").textContent = stopped ? "Start" : "Stop";
  for (const radio of document.getElementsByName("source")) radio.disabled = !stopped;
}

function showTranscriptButtons() {
  for (const button of [byId("copy"), byId("clear"), ...document.querySelectorAll("[data-save]")]) button.disabled = transcript.empty;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(transcript.text());
    notice.show("Copied.", { passing: true });
  } catch {
    notice.show("The browser does not let this page copy: save it as TXT instead.");
  }
}

function clear() {
  const [segments, lines] = [transcript.clear(), captions.clear()];
  showTranscriptButtons();
  notice.show("The transcript was cleared.", {
    action: "Undo",
    run() {
      transcript.restore(segments);
      captions.restore(lines);
      showTranscriptButtons();
    },
  });
}

byId("start").addEventListener("click", () => (running ? stop() : start()));
byId("copy").addEventListener("click", copy);
byId("clear").addEventListener("click", clear);
for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => saveAs(transcript.as(button.dataset.save), button.dataset.save));
}
themeButton(byId("theme"));
