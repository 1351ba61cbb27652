"""Whether this machine keeps up: predicted from its profile, and measured."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from edgeasr.bundle import Bundle, default_bundle
from edgeasr.devices.detect import detect
from edgeasr.devices.doctor.examination import Check, Circumstances, Finding
from edgeasr.metrics import percentiles
from edgeasr.profile.run import StreamRun, stream_run
from edgeasr.recording import DEMO_RECORDING

if TYPE_CHECKING:
    from edgeasr.recognizer import Recognizer

GROUP = "recognition"
_AUDIO_S = 8.0  # about the bundled clip
_BUSY = 0.5  # of the time: above it there is little room for anything else
_SLOWER = "`edgeasr listen --decoder greedy`, or a smaller model; `edgeasr profile` says where the time goes"


def checks(given: Circumstances) -> list[Check]:
    """Those of this file."""
    runs = _Runs(given)
    return [
        Check(GROUP, "measured", runs.measured, limit_s=90),
        Check(GROUP, "predicted", runs.predicted, limit_s=90),
    ]


class _Runs:
    """The model is loaded once for both."""

    def __init__(self, given: Circumstances) -> None:
        self._given = given
        self._recognizer: Recognizer | None = None

    @cached_property
    def _bundle(self) -> Bundle:
        return Bundle.load(self._given.model or default_bundle())

    def measured(self) -> Finding:
        """The bundled clip through the whole chain, as fast as it goes."""
        from edgeasr.recognizer import Recognizer

        self._recognizer = recognizer = Recognizer(self._bundle)
        run = stream_run(recognizer, DEMO_RECORDING, _AUDIO_S)
        return judged_run(run, recognizer.model.config.chunk_ms)

    def predicted(self) -> Finding:
        """The encoder on the board that this is, by the board's profile."""
        import resource

        if self._recognizer is None:
            return Finding("skipped", "there is no model that was loaded")
        model = self._recognizer.model
        if not model.artefact.startswith("onnx"):
            return Finding("skipped", f"of {model.artefact} no time is predicted: only ONNX's operators can be counted")
        # They import ONNX Runtime, which a board may do without.
        from edgeasr.profile.model_profile import profile_model
        from edgeasr.profile.prediction import predict, step_work

        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        profiled = profile_model(model, self._bundle, DEMO_RECORDING, quick=True)
        found = detect(self._given.root)
        chunk_ms = model.config.chunk_ms
        told = predict(found.profile, step_work(profiled.step, chunk_ms, resident), backend=model.backend)
        text = (
            f"{told.time_ms:.1f} ms for the encoder's {chunk_ms} ms on {told.device}, bound by {told.bound}: "
            f"{'real time is met' if told.real_time else 'real time is not met'}"
        )
        if told.fits_memory is False:
            return Finding("warn", f"{text}, but the memory is small", "close other programs, or take a smaller model")
        return Finding("ok" if told.real_time else "warn", text, "" if told.real_time else _SLOWER)


def judged_run(run: StreamRun, chunk_ms: int) -> Finding:
    """Of the time that the audio lasts, how much passed; what others run counts, since it does so later, too."""
    worst = percentiles(run.chunk_ms, [99])["p99"] or 0.0
    text = (
        f"{run.wall_rtf:.3f} s for a second of speech ({run.rtf:.3f} s of the processor), "
        f"99 % of chunks within {worst:.1f} of {chunk_ms} ms, {run.words} words"
    )
    if not run.words:
        return Finding("fail", f"{text}: the bundled clip holds some", "fetch or install the model again")
    if run.wall_rtf >= 1:
        return Finding("fail", f"{text}: real time is not met", _SLOWER)
    if run.wall_rtf >= _BUSY:
        return Finding("warn", f"{text}: real time is met, with little to spare", _SLOWER)
    return Finding("ok", f"{text}: real time is met")
