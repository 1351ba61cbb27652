"""Bytes of samples as they come, and the source made of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from edgeasr.capture.channels import ChannelMix
from edgeasr.capture.live import POLL_S, LiveSource, never, say_nothing
from edgeasr.capture.losses import Say
from edgeasr.capture.pcm import PcmFormat, decode_pcm
from edgeasr.errors import AudioFormatError, EdgeasrError
from edgeasr.firmware_bridge.transport import TransportEnded, TransportLostError

_BLOCK_S = 0.04
_RETRY_S = 1.0


class Feed(Protocol):
    """Where bytes come from; of a `Transport` what is needed to listen.

    may_return: whether reopen() may succeed after a loss
    """

    name: str
    may_return: bool

    def read(self, timeout_s: float) -> bytes:
        """What has come, after waiting for the first byte; b"" where none came in time.

        errors: TransportEnded, TransportLostError
        """

    def reopen(self) -> bool:
        """Try once to have a lost feed back."""

    def close(self) -> None: ...


class FeedSource(LiveSource):
    """The samples of a feed, read by a thread of their own.

    live: whether samples are lost where recognition is too slow for long, as of a microphone; else the feed waits
    say, stopped: as for LiveSource

    What ends in half a frame, or before the first, raises AudioFormatError after all that came before it; a feed that
    is lost and cannot return DeviceError.
    """

    def __init__(
        self,
        feed: Feed,
        pcm: PcmFormat,
        say: Say = say_nothing,
        stopped: Callable[[], bool] = never,
        *,
        live: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(feed.name, pcm.sample_rate_hz, say, stopped, clock)
        self.drops = live
        self._feed, self._pcm = feed, pcm
        self._mix = ChannelMix(pcm.channels)
        self._block_bytes = max(1, round(_BLOCK_S * pcm.sample_rate_hz)) * pcm.frame_bytes
        self._thread = threading.Thread(target=self._run, name=f"hears {feed.name}", daemon=True)
        self._bytes = bytearray()  # that came and are no block yet
        self._num_frames = 0

    def _start(self) -> None:
        self._thread.start()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self._feed.close()

    def _run(self) -> None:
        failure: EdgeasrError | None = None
        try:
            while not self._closed and self._hear():
                pass
        except EdgeasrError as error:
            failure = error
        if not self._closed:
            self._take(self._bytes, len(self._bytes) // self._pcm.frame_bytes)
        self._finish(failure or self._malformed())

    def _hear(self) -> bool:
        """Takes what comes next. returns: False at the end. errors: TransportLostError"""
        try:
            self._bytes += self._feed.read(POLL_S)
        except TransportEnded:
            return False
        except TransportLostError as error:
            if not self._feed.may_return:
                raise
            self._take(self._bytes, len(self._bytes) // self._pcm.frame_bytes)
            self._bytes.clear()
            self._await(error)
        while len(self._bytes) >= self._block_bytes:
            self._take(self._bytes, self._block_bytes // self._pcm.frame_bytes)
        return True

    def _await(self, loss: TransportLostError) -> None:
        """Until the feed is there again, or nobody wants it any more."""
        self._leave(str(loss).removeprefix(f"{self.name} "))
        while not self._closed and not self._feed.reopen():
            time.sleep(_RETRY_S)

    def _take(self, data: bytearray, num_frames: int) -> None:
        if num_frames == 0:
            return
        num_bytes = num_frames * self._pcm.frame_bytes
        self._num_frames += num_frames
        samples = self._mix.mix(decode_pcm(bytes(data[:num_bytes]), self._pcm))
        del data[:num_bytes]
        self._await_room(len(samples))
        self._put(samples)

    def _await_room(self, num_samples: int) -> None:
        while not self.drops and not self._closed and self._ring.room < num_samples:
            time.sleep(_BLOCK_S)

    def _malformed(self) -> AudioFormatError | None:
        wanted = f"want {self._pcm} (RATE:CHANNELS:ENCODING)"
        if self._bytes:
            num_bytes = self._num_frames * self._pcm.frame_bytes + len(self._bytes)
            return AudioFormatError(
                f"{self.name} ended in half a frame, after {num_bytes} bytes, {wanted}, {self._pcm.frame_bytes} bytes "
                "a frame: check that the sender writes that and was not cut off"
            )
        if self._num_frames == 0:
            return AudioFormatError(f"{self.name} ended before the first sample, {wanted}: check the sender")
        return None
