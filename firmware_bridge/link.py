"""A session on a transport: a thread reads, answers and reconnects; messages wait in a bounded queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Self

from edgeasr.errors import DeviceError, EdgeasrError
from edgeasr.firmware_bridge.frame import Counts, Frame
from edgeasr.firmware_bridge.messages import Command, CommandCode, Message, ProtocolError
from edgeasr.firmware_bridge.session import LinkConfig, Received, Say, Session
from edgeasr.firmware_bridge.transport import (
    Transport,
    TransportEnded,
    TransportLostError,
    TransportResetError,
    open_transport,
    options_of,
)

POLL_S = 0.05  # so long a wait for bytes or frames at most, then what else there is to do
WRITE_TIMEOUT_S = 0.5
REOPEN_S = 0.5
REPORT_S = 10.0  # between two lines about losses
QUEUE_FRAMES = 500  # ten seconds in frames of 20 ms; when it is full reading waits, and TCP makes the sender wait


class Link:
    """A device on a transport, in a session that lasts until the stream ends or close().

    clock: of the host, in seconds; arrival times are by it

    A stream that ends in the middle of a frame, or breaks and cannot come back, raises DeviceError from received()
    after what came before. A reset between two frames is an end, and said.
    """

    def __init__(
        self, transport: Transport, config: LinkConfig, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = transport.name
        self.session = Session(transport.name, config, say, transport.bytes_per_s)
        self._transport, self._say, self._clock = transport, say, clock
        self._queue: Queue[Received | EdgeasrError | None] = Queue(QUEUE_FRAMES)
        self._lock = threading.Lock()  # around the session
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported, self._reported_s = Counts(), float("-inf")
        self._deaf: TransportLostError | None = None  # it takes nothing any more, but may be read to its end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        with self._lock:
            return self.session.counts

    def received(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[Received]:
        """Frames as they come, until the stream ends, close(), or the caller says that it stopped."""
        return (item for item in self.arrivals(stopped) if item is not None)

    def arrivals(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[Received | None]:
        """As received(), with None after each POLL_S in which nothing came."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name=f"link {self.name}", daemon=True)
            self._thread.start()
        while not stopped():
            try:
                item = self._queue.get(timeout=POLL_S)
            except Empty:
                if self._closed.is_set():
                    return
                yield None
                continue
            if item is None:
                return
            if isinstance(item, EdgeasrError):
                raise item
            yield item

    def send(self, message: Message) -> None:
        """Send a message to the device, soon."""
        with self._lock:
            self.session.send(message)

    def now_s(self) -> float:
        """The time by the host's clock."""
        return self._clock()

    def refuse(self, frame: Frame, error: ProtocolError) -> None:
        """What a frame holds makes no sense: count it."""
        with self._lock:
            self.session.reader.refuse(frame, error)

    def close(self) -> None:
        """Tell the device to stop, send what is queued, and end."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self.session.device is not None:
            self.send(Command(CommandCode.STOP, 0))
        with suppress(TransportLostError):  # nobody is there to be told
            self._write()
        self._transport.close()

    def _read(self) -> None:
        """The thread."""
        outcome: EdgeasrError | None = None
        try:
            with self._lock:
                self.session.begin(self._clock())
            while not self._closed.is_set():
                try:
                    self._exchange()
                except TransportLostError as error:
                    self._wait_for_return(error)
        except TransportEnded:
            outcome = self._reset(self._deaf) if self._deaf else self._cut_short()
        except TransportResetError as error:
            outcome = self._reset(error)
        except EdgeasrError as error:
            outcome = error
        finally:
            self._put(outcome)

    def _exchange(self) -> None:
        """One turn: write, read, and hand on."""
        self._write()
        data = self._transport.read(POLL_S)
        if not data and self._deaf is not None:
            raise self._deaf
        now_s = self._clock()
        with self._lock:
            received = self.session.accept(data, now_s)
            self.session.tick(now_s)
        for item in received:
            self._put(item)
        self._report_losses(now_s)

    def _write(self) -> None:
        with self._lock:
            data = self.session.take_outgoing()
        if not data or self._deaf is not None:
            return
        try:
            self._transport.write(data, WRITE_TIMEOUT_S)
        except TransportLostError as error:
            if self._transport.may_return:
                raise
            self._deaf = error

    def _put(self, item: Received | EdgeasrError | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=POLL_S)
            except Full:
                continue
            return

    def _wait_for_return(self, error: TransportLostError) -> None:
        if not self._transport.may_return:
            raise error
        where = " (in the middle of a frame)" if self.session.is_within_frame else ""
        self._say(f"{error}{where}; waiting for it to come back")
        while not self._closed.wait(REOPEN_S):
            if self._transport.reopen():
                self._say(f"{self.name} is back")
                with self._lock:
                    self.session.begin(self._clock())
                return

    def _cut_short(self) -> DeviceError | None:
        if not self.session.is_within_frame:
            return None
        return DeviceError(f"{self.name} ended in the middle of a frame, want a whole one: check the device")

    def _reset(self, error: TransportLostError) -> DeviceError | None:
        """A device that ends while something is sent to it resets the connection; one that breaks may do so too."""
        if self.session.is_within_frame or not self.session.counts.frames:
            return error
        self._say(f"{self.name}: the connection was reset between two frames, which is taken as the end")
        return None

    def _report_losses(self, now_s: float) -> None:
        """One line when frames were lost or damaged, at most every REPORT_S."""
        counts = self.session.counts
        worse = counts.lost > self._reported.lost or counts.errors > self._reported.errors
        if worse and now_s - self._reported_s >= REPORT_S:
            self._say(f"{self.name}: {counts} so far")
            self._reported, self._reported_s = counts, now_s


def open_link(url: str, say: Say) -> Link:
    """The link that a URL names. errors: ConfigError, DeviceError, ExtraMissingError"""
    config = LinkConfig.from_options(options_of(url))
    transport, _ = open_transport(url, say)
    return Link(transport, config, say)
