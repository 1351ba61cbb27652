"""The live page in Chromium, which hears the bundled clip from a fake microphone."""

import asyncio
import re
import socket
import threading
import time
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from runpy import run_path

import pytest
import soundfile

from edgeasr.audio import FileSource
from edgeasr.errors import DeviceError
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.serve.page_files import page_files
from edgeasr.serve.security import Access
from edgeasr.serve.server import Server, ServerConfig
from edgeasr.transcript import Final, SrtWriter, TextWriter, VttWriter, cues

TESTS = Path(__file__).parent
BROWSER = run_path(str(TESTS / "browser.py"))
browser, show, require_browser, WIDE, PHONE, SMALL = (
    BROWSER[name] for name in ("browser", "show", "require_browser", "WIDE", "PHONE", "SMALL")
)
make_hub = run_path(str(TESTS / "served.py"))["make_hub"]

CLIP = TESTS.parent / "edgeasr" / "models" / "demo.flac"
FIRST, SECOND = "it was the first time that she had seen the old house", "he had a great deal of money"
TOKEN = "correct-horse-battery"
PATIENCE_S = 60  # never reached, unless something hangs


class Site:
    """A server on a thread of its own. url: with a slash at the end; held: streams that somebody else has"""

    def __init__(self, model, *, access=None, port=0, source=None, held=0, **limits):
        self._model, self._limits, self._held = model, limits, held
        self._config = ServerConfig(access or Access(), port=port)
        self._source = source or partial(FileSource, CLIP, real_time=True)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as opened:
            self.hub = await opened.enter_async_context(make_hub(self._model, **self._limits))
            server = await opened.enter_async_context(Server(self.hub, self._config, "tiny-en", self._source))
            for _ in range(self._held):
                await opened.enter_async_context(self.hub.stream("held"))
            self.port = int(server.urls[0].rpartition(":")[2])
            self.url = f"{server.urls[0]}/"
            self._ready.set()
            await self._stop.wait()

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)


@contextmanager
def site(model, **options):
    opened = Site(model, **options)
    try:
        yield opened
    finally:
        opened.close()


class Cable:
    """Between a browser and a server at another port of this machine, to be cut."""

    def __init__(self, port):
        self._far, self._ends, self._whole = port, [], True
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._far))
            self._ends += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=ends).start()

    @staticmethod
    def _carry(source, target):
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        self._whole = False
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def mend(self):
        self._whole = True

    def close(self):
        self.cut()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def cable(port):
    with closing(Cable(port)) as opened:
        yield opened


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    require_browser()
    folder = tmp_path_factory.mktemp("browser")
    samples, rate = soundfile.read(CLIP, dtype="int16")
    soundfile.write(folder / "clip.wav", samples, rate)
    (folder / "downloads").mkdir()
    with browser(folder, folder / "clip.wav") as opened:
        opened.folder = folder
        yield opened


@pytest.fixture
def page(driver):
    yield driver
    driver.get("about:blank")  # which ends what it was hearing
    driver.get_log("browser")


def until(condition):
    """What it gives, once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


def element(page, name):
    return page.find_element("id", name)


def text(page, name):
    return element(page, name).text


def state(page):
    return text(page, "state-text")


def complaints(page):
    """What the console says, but for the network's own word on a connection that was lost."""
    return [line["message"] for line in page.get_log("browser") if line["source"] != "network"]


def start(page, source="browser"):
    if source == "device":
        page.find_element("css selector", "input[value=device]").click()
    element(page, "start").click()


def visible_texts(page):
    """(tag, text, ratio) of every element that shows text: of its colour and what is behind it, by WCAG."""
    return page.execute_script("""
        const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
        const luminance = (color) => {
          const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
          const [r, g, b] = rgb(color).map((c) => linear(c / 255));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (node) => {
          for (; node; node = node.parentElement) {
            const color = getComputedStyle(node).backgroundColor;
            if (color !== "transparent" && rgb(color)[3] !== 0) return color;
          }
          return "rgb(255, 255, 255)";
        };
        return [...document.body.querySelectorAll("*")]
          .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
          .filter((node) => node.checkVisibility() && !node.closest(":disabled, .skip, noscript, title, legend"))
          .map((node) => {
            const both = [luminance(getComputedStyle(node).color), luminance(ground(node))];
            const [dark, bright] = both.sort((a, b) => a - b);
            return [node.tagName, node.textContent.trim().slice(0, 30), (bright + 0.05) / (dark + 0.05)];
          });
    """)


def test_words_of_speech_appear_are_read_out_once_and_are_saved(page, model):
    with site(model) as server:
        show(page, server.url)
        page.execute_script("""
            window.added = [];
            window.rewritten = 0;
            new MutationObserver(() => rewritten++).observe(document.getElementById("partial"), { childList: true });
            const note = (changes) => {
              for (const { target, addedNodes } of changes) {
                for (const node of addedNodes) added.push([target.id, node.textContent]);
              }
            };
            new MutationObserver(note).observe(document.getElementById("finals"), { childList: true, subtree: true });
        """)
        start(page)
        until(lambda: SECOND in text(page, "finals"))
        assert state(page) == "Listening"
        assert page.execute_script("return rewritten") > page.execute_script("return added.length")
        assert int(text(page, "latency")) > 0
        assert float(text(page, "rtf")) > 0
        told = element(page, "memory").get_attribute("aria-label")
        assert told.startswith(f"Vectors of this stream: {text(page, 'stored')} stored, ")
        assert int(text(page, "stored")) >= 1
        assert text(page, "model") == "tiny-en"
        start(page)
        until(lambda: state(page) == "Not listening")
        assert server.hub.num_streams == 0
        folder = page.folder / "downloads"
        allow = {"behavior": "allow", "downloadPath": str(folder)}
        page.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
        page.find_element("css selector", "[data-save=txt]").click()
        (saved,) = until(lambda: list(folder.glob("transcript-*.txt")))
        shown = [line.text.replace("\n", "") for line in page.find_elements("css selector", "#finals .line")]
        assert page.execute_script("return added") == [["finals", line] for line in shown]
        lines = [line.text.split("\n")[1] for line in page.find_elements("css selector", "#finals .line")]
        assert saved.read_text() == "".join(f"{line}\n" for line in lines)
        assert complaints(page) == []


def test_only_finished_sentences_are_read_out(page, model):
    with site(model) as server:
        show(page, server.url)
        log, partial = element(page, "finals"), element(page, "partial")
        assert (log.aria_role, log.get_attribute("aria-live")) == ("log", "polite")
        assert partial.get_attribute("aria-live") == "off"
        assert not log.find_elements("id", "partial")


def test_the_device_is_heard_and_what_was_cleared_can_be_had_back(page, model):
    with site(model) as server:
        show(page, server.url, PHONE, theme="dark")
        start(page, "device")
        until(lambda: element(page, "level").get_attribute("aria-valuenow") != "-60")
        until(lambda: FIRST in text(page, "finals"))
        assert int(text(page, "latency")) > 0
        start(page)
        until(lambda: state(page) == "Not listening")
        until(lambda: server.hub.num_streams == 0)
        whole = text(page, "finals")
        element(page, "clear").click()
        assert (text(page, "finals"), element(page, "copy").is_enabled()) == ("", False)
        element(page, "notice-action").click()
        assert (text(page, "finals"), element(page, "copy").is_enabled()) == (whole, True)
        assert complaints(page) == []


def test_a_lost_connection_is_said_and_mended_and_what_was_spoken_meanwhile_is_heard(page, model):
    with site(model) as server, cable(server.port) as line:
        show(page, f"http://127.0.0.1:{line.port}/")
        start(page)
        until(lambda: FIRST in text(page, "finals"))
        line.cut()
        until(lambda: re.fullmatch(r"Connection lost, trying again in \d+ s", state(page)))
        line.mend()
        until(lambda: state(page) == "Listening")
        until(lambda: "deal of money" in text(page, "finals"))
        assert {FIRST, "The connection was lost here."} < set(text(page, "finals").split("\n"))


def test_a_server_that_is_started_again_is_found_again(page, model):
    with site(model) as first:
        show(page, first.url)
        start(page)
        until(lambda: state(page) == "Listening")
    until(lambda: state(page).startswith("Connection lost"))
    with site(model, port=first.port):
        until(lambda: state(page) == "Listening")


def test_who_has_no_token_is_asked_for_it(page, model):
    with site(model, access=Access(TOKEN)) as server:
        show(page, server.url)
        start(page)
        until(lambda: element(page, "ask-token").get_attribute("open"))
        element(page, "token").send_keys("not the token of it\n")
        until(lambda: text(page, "ask-why") == "That was not the token. Try again.")
        element(page, "token").send_keys(f"{TOKEN}\n")
        until(lambda: state(page) == "Listening")
        addresses = page.execute_script("return performance.getEntries().map((entry) => entry.name)")
        assert not [address for address in [*addresses, page.current_url] if TOKEN in address]


def test_a_full_server_is_told_in_words(page, model):
    with site(model, max_streams=1, held=1) as server:
        show(page, server.url)
        start(page)
        until(lambda: text(page, "notice-text") == "the server hears 1 stream, as many as it takes: try again later")
        assert (state(page), text(page, "start")) == ("Not listening", "Start")


def test_a_device_without_a_microphone_is_told_in_words(page, model):
    def missing():
        raise DeviceError("no microphone found: plug one in")

    with site(model, source=missing) as server:
        show(page, server.url)
        start(page, "device")
        until(lambda: text(page, "notice-text") == "no microphone found: plug one in")
        assert state(page) == "Not listening"


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        (None, "This page may not use the microphone."),
        (
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }",
            "found no",
        ),
        (
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotReadableError'); }",
            "held by",
        ),
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })", "only to pages from https"),
    ],
)
def test_a_microphone_that_cannot_be_used_is_told_in_words(page, model, setup, words):
    with site(model) as server:
        show(page, server.url, permission="granted" if setup else "denied")
        if setup:
            page.execute_script(setup)
        start(page)
        assert words in until(lambda: text(page, "notice-text"))
        assert (state(page), element(page, "notice").get_attribute("role")) == ("Not listening", "alert")


def test_everything_can_be_done_by_keyboard(page, model):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    with site(model) as server:
        show(page, server.url)
        keys = lambda *pressed: ActionChains(page).send_keys(*pressed).perform()  # noqa: E731
        reached = []
        for _ in range(5):
            keys(Keys.TAB)
            focused = page.switch_to.active_element
            reached.append(focused.get_attribute("id") or focused.get_attribute("value") or focused.text)
            outline = focused.value_of_css_property("outline-style")
            assert outline == "solid" or focused.tag_name == "input", reached
        assert reached == ["Skip to the captions", "theme", "captions", "start", "browser"]
        keys(Keys.ARROW_RIGHT)
        assert page.find_element("css selector", "input[value=device]").is_selected()
        ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).send_keys(Keys.ENTER).perform()
        until(lambda: state(page) == "Listening")


def test_who_reads_back_is_left_there_until_the_latest_words_are_asked_for(page, model):
    with site(model) as server:
        show(page, server.url)
        add = """
            const [count, done] = arguments;
            import("/page/captions.js").then(({ Captions }) => {
              const byId = (id) => document.getElementById(id);
              window.reader ??= new Captions({
                scroller: byId("captions"), finals: byId("finals"), partial: byId("partial"),
                welcome: byId("welcome"), latest: byId("latest"),
              });
              for (let i = 0; i < count; i++) reader.addFinal({ words: [{ word: "word", conf: 1 }] }, i);
              requestAnimationFrame(() => requestAnimationFrame(done));
            });
        """
        left = (
            "const at = document.getElementById('captions'); return at.scrollHeight - at.clientHeight - at.scrollTop;"
        )
        page.execute_async_script(add, 1100)
        assert len(page.find_elements("css selector", "#finals .line")) == 1000
        assert page.execute_script(left) < 2
        assert not element(page, "latest").is_displayed()
        page.execute_script("document.getElementById('captions').scrollTop = 0")
        until(lambda: element(page, "latest").is_displayed())
        page.execute_async_script(add, 5)
        assert page.execute_script("return document.getElementById('captions').scrollTop") < 2000
        element(page, "latest").click()
        until(lambda: page.execute_script(left) < 2)
        assert not element(page, "latest").is_displayed()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE, SMALL])
def test_text_has_contrast_and_nothing_is_wider_than_the_screen(page, model, theme, size):
    with site(model) as server:
        show(page, server.url, size, theme)
        shown = visible_texts(page)
        assert {"Press Start and speak.", "Start", "grey", "Level"} <= {words for _, words, _ in shown}
        assert [line for line in shown if line[2] < 4.5] == []
        widest = page.execute_script("return document.documentElement.scrollWidth")
        assert widest == size[0]
        buttons = page.find_elements("css selector", "button")
        assert all(button.size["height"] >= 40 for button in buttons if button.is_displayed())


def test_the_chosen_theme_is_kept_and_who_wants_no_motion_gets_none(page, model):
    with site(model) as server:
        show(page, server.url, theme="dark")
        element(page, "theme").click()
        assert element(page, "theme").get_attribute("aria-label") == "Theme: light"
        page.refresh()
        ground = page.find_element("tag name", "body").value_of_css_property("background-color")
        assert ground == "rgba(244, 246, 248, 1)"
        page.execute_script("localStorage.clear()")
        media = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        moving = page.execute_script("""
            document.getElementById("state").dataset.state = "listening";
            const styles = [...document.querySelectorAll("*")].map((node) => getComputedStyle(node));
            return styles.filter((style) => style.animationName !== "none" || style.transitionDuration !== "0s").length;
        """)
        assert moving == 0


def test_files_are_those_that_the_command_line_writes(page, model):
    with FileSource(CLIP) as source:
        finals = [event for event in Recognizer(model).stream(source) if isinstance(event, Final)]
    segments = [
        {"start": event.start, "text": event.text, "cues": [vars(cue) for cue in cues(event)]} for event in finals
    ]
    segments[0]["text"] = segments[0]["cues"][0]["text"] = "<b> & it was"
    with site(model) as server:
        show(page, server.url)
        written = page.execute_async_script(
            """const [segments, done] = arguments;
            import("/page/transcript.js").then(({ Transcript }) => {
              const transcript = new Transcript();
              for (const segment of segments) transcript.add(segment);
              done(["txt", "srt", "vtt"].map((format) => transcript.as(format)));
            });""",
            segments,
        )
    for writer, found in zip((TextWriter(), SrtWriter(), VttWriter()), written, strict=True):
        wanted = writer.header + "".join(writer.write(event) for event in finals) + writer.footer
        escaped = "&lt;b&gt; &amp; it was" if isinstance(writer, VttWriter) else "<b> & it was"
        original = finals[0].text if isinstance(writer, TextWriter) else next(cues(finals[0])).text
        assert found == wanted.replace(original, escaped, 1)


class _Page(HTMLParser):
    def __init__(self, content):
        super().__init__()
        self.links, self.inline, self.ids = [], [], []
        self._in_script = False
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[key] for key in ("src", "href") if key in attributes]
        self.inline += [key for key in attributes if key.startswith("on") or key == "style"]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self._in_script = tag in ("script", "style")

    def handle_data(self, data):
        if self._in_script and data.strip():
            self.inline.append(data)
        self._in_script = False


def test_the_page_is_whole_and_needs_nothing_from_elsewhere():
    files = page_files()
    parsed = _Page(files["index.html"].decode())
    assert parsed.inline == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert all(link.startswith(("/page/", "#")) for link in parsed.links)
    named = [link.removeprefix("/page/") for link in parsed.links if link.startswith("/page/")]
    for name, content in files.items():
        if name.endswith(".js"):
            source = content.decode()
            named += re.findall(r'from "\./([\w.-]+)"', source) + re.findall(r'"/page/([\w.-]+)"', source)
            assert set(re.findall(r'byId\("([\w-]+)"\)', source)) <= set(parsed.ids)
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg|127\.0\.0\.1)", content)
    assert set(named) | {"index.html"} == set(files)
