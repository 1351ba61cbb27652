import json
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from runpy import run_path

import pytest
import soundfile

pytest.importorskip("paho.mqtt.client", reason="MQTT needs the extra `mqtt`")

from edgeasr.actions.mqtt import Broker, Mqtt
from edgeasr.actions.outbox import Outbox, OutboxLimits
from edgeasr.errors import ActionError, ConfigError

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, tone = SCRIPTED["edgeasr"], SCRIPTED["tone"]
FINAL = {"type": "final", "segment": 3, "text": "lights on", "tags": ["on"]}
PATIENCE_S = 30
CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 12, 14


class StandInBroker:
    """As much of MQTT 3.1.1 as one publisher needs (OASIS standard, 3.1 to 3.4).

    messages:      topic, payload and flags of what was published
    acknowledges:  whether it says that it has a message
    refuses:       the return code of a connection, 0 for none
    """

    def __init__(self, port=0):
        self.messages, self.connects, self.acknowledges, self.refuses = [], [], True, 0
        self.changed = threading.Condition()
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S)

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()

    def drop(self):
        """Break all connections off."""
        while self._open:
            connection = self._open.pop()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with suppress(OSError, EOFError, ValueError), connection.makefile("rb") as stream:
            while True:
                head = _exactly(stream, 1)[0]
                body = _exactly(stream, _length(stream))
                self._answer(connection, head >> 4, head & 15, body)

    def _answer(self, connection, kind, flags, body):
        if kind == CONNECT:
            connection.sendall(bytes([CONNACK << 4, 2, 0, self.refuses]))
            with self.changed:
                self.connects.append(body)
                self.changed.notify_all()
        elif kind == PUBLISH:
            (length,) = struct.unpack_from(">H", body)
            topic, number = body[2 : 2 + length].decode(), body[2 + length : 4 + length]
            with self.changed:
                self.messages.append((topic, json.loads(body[4 + length :]), flags))
                self.changed.notify_all()
            if self.acknowledges:
                connection.sendall(bytes([PUBACK << 4, 2]) + number)
        elif kind == PINGREQ:
            connection.sendall(bytes([13 << 4, 0]))
        elif kind == DISCONNECT:
            raise EOFError


def _exactly(stream, count):
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _length(stream):
    """Of a packet, 7 bits a byte."""
    value = shift = 0
    while True:
        byte = _exactly(stream, 1)[0]
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value


@pytest.fixture
def broker():
    made = StandInBroker()
    yield made
    made.close()


@pytest.fixture
def publisher(broker):
    made = Mqtt(f"mqtt://127.0.0.1:{broker.port}/edgeasr/kitchen", timeout_s=PATIENCE_S)
    broker.wait_for(lambda: broker.connects)
    yield made
    made.close()


def deliver(action, event):
    """Again and again, as an outbox does."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            return action.deliver(event)
        except ActionError:
            time.sleep(0.02)
    return action.deliver(event)


def test_finals_are_published_at_least_once(broker, publisher):
    deliver(publisher, FINAL)
    deliver(publisher, {**FINAL, "segment": 4})
    assert [(topic, event["segment"]) for topic, event, _ in broker.messages] == [
        ("edgeasr/kitchen", 3),
        ("edgeasr/kitchen", 4),
    ]
    assert broker.messages[0][1] == FINAL
    assert {flags & 6 for *_, flags in broker.messages} == {2}, "quality of service 1"


def test_name_and_password_are_sent_and_shown_nowhere(broker):
    action = Mqtt(f"mqtt://me%40home:se%2Fcret@127.0.0.1:{broker.port}/a")
    broker.wait_for(lambda: broker.connects)
    action.close()
    assert broker.connects[0].endswith(b"\x00\x07me@home\x00\x07se/cret")
    assert action.name == "--mqtt 127.0.0.1"


def test_a_refusal_is_told(broker):
    broker.refuses = 5
    action = Mqtt(f"mqtt://127.0.0.1:{broker.port}/a")
    try:
        broker.wait_for(lambda: broker.connects)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with pytest.raises(ActionError) as caught:
                action.deliver(FINAL)
            if "Not authorized" in str(caught.value):
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert caught.value.again is True
    finally:
        action.close()


def test_a_message_that_was_not_taken_is_not_published_twice(broker):
    broker.acknowledges = False
    action = Mqtt(f"mqtt://127.0.0.1:{broker.port}/a", timeout_s=0.2)
    try:
        broker.wait_for(lambda: broker.connects)
        while not broker.messages:
            with pytest.raises(ActionError):
                action.deliver(FINAL)
        with pytest.raises(ActionError, match=r"did not take a message within 0\.2 s"):
            action.deliver(FINAL)
        assert len(broker.messages) == 1
        broker.acknowledges = True
        broker.drop()
        # After a reconnection it comes again, marked as a repetition.
        deliver(action, FINAL)
        assert [flags & 8 for *_, flags in broker.messages] == [0, 8]
    finally:
        action.close()


def test_what_is_said_while_the_broker_is_away_arrives_when_it_is_back():
    first = StandInBroker()
    said = []
    outbox = Outbox(
        Mqtt(f"mqtt://127.0.0.1:{first.port}/a", timeout_s=PATIENCE_S), said.append, OutboxLimits(first_pause_s=0.05)
    )
    first.wait_for(lambda: first.connects)
    first.close()
    for segment in range(3):
        outbox.put({**FINAL, "segment": segment})
    second = StandInBroker(first.port)
    try:
        second.wait_for(lambda: len(second.messages) == 3)
        assert [event["segment"] for _, event, _ in second.messages] == [0, 1, 2]
    finally:
        outbox.begin_to_close(time.monotonic() + PATIENCE_S)
        outbox.close()
        second.close()
    assert not [line for line in said if "not delivered" in line]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mqtt://hub/a", Broker("hub", 1883, False, None, None, "a")),
        ("mqtts://hub/home/kitchen", Broker("hub", 8883, True, None, None, "home/kitchen")),
        ("mqtt://u:p@[::1]:99/a%20b", Broker("::1", 99, False, "u", "p", "a b")),
        ("mqtt://u@hub//a", Broker("hub", 1883, False, "u", None, "/a")),
    ],
)
def test_addresses(url, wanted):
    assert Broker.parse(url) == wanted


def test_topics_for_those_who_hear_are_none_to_publish_on():
    for topic in ("a/#", "+/b"):
        with pytest.raises(ConfigError, match="# and \\+ are not allowed"):
            Broker.parse(f"mqtt://hub/{topic}")


@pytest.mark.parametrize(
    ("host", "cause"),
    [("127.0.0.1:1", "Connection refused"), ("no-such-host.invalid", "not known|resolution|No address")],
)
def test_why_a_broker_is_not_there(host, cause):
    action = Mqtt(f"mqtt://{host}/a")
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with pytest.raises(ActionError) as caught:
                action.deliver(FINAL)
            if "not connected yet" not in str(caught.value):
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert re.search(cause, str(caught.value))
        assert caught.value.again is True
    finally:
        action.close()


@pytest.mark.parametrize(
    "url",
    ["http://hub/a", "mqtt:///a", "mqtt://hub", "mqtt://hub/", "mqtt://hub/a/#", "mqtt://hub/+/b", "mqtt://h:x/a", ""],
)
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(ConfigError, match="--mqtt"):
        Broker.parse(url)


def test_listen_publishes_its_finals(broker, tmp_path):
    clip = tmp_path / "so.wav"
    soundfile.write(clip, tone("so it goes"), 16_000)
    done = edgeasr("listen", "--source", clip, "--mqtt", f"mqtt://127.0.0.1:{broker.port}/edgeasr")
    assert (done.code, done.out) == (0, "so it goes\n")
    assert "not delivered" not in done.err
    assert [(topic, event["text"]) for topic, event, _ in broker.messages] == [("edgeasr", "so it goes")]
