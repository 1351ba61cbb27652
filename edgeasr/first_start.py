"""What is compiled at a first start, before anything is heard that would have to wait for it."""

from __future__ import annotations

from contextlib import suppress

from edgeasr.errors import NativeCodeError


def compile_first(*, native: bool, greedy: bool) -> None:
    """C of this package, where there is a compiler; at later starts this only loads it.

    native: whether the model may run in C; greedy: whether pieces are decoded, not words
    """
    from edgeasr.config import FeatureConfig
    from edgeasr.log_mel_native import fastest_log_mel

    if native:
        with suppress(NativeCodeError, ImportError):  # protobuf comes with ONNX Runtime, but Debian's may be without
            from edgeasr.backends.native.kernels import native_library

            native_library()
    fastest_log_mel(FeatureConfig())
    with suppress(NativeCodeError):
        if greedy:
            from edgeasr.transducer_native import transducer_library

            transducer_library()
        else:
            from edgeasr.lexicon_native import search_library

            search_library()
