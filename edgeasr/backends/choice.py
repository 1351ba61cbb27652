"""Which backends run which artefacts of a bundle."""

from __future__ import annotations

from edgeasr.bundle import Bundle
from edgeasr.errors import BundleError, ConfigError

# On an NVIDIA GPU. None of these is taken unless it is asked for: what it needs no package of ours brings.
CUDA, ENGINES_OF_ONNXRUNTIME, ENGINES = "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"
ON_GPU = (CUDA, ENGINES_OF_ONNXRUNTIME, ENGINES)

# C of our own, which is taken before ONNX Runtime where it can be: see `AcousticModel`.
NATIVE = "native"

# By the first part of an artefact's kind ("onnx-int8"); the first is taken where none is asked for.
_BACKENDS = {
    "onnx": ("onnxruntime", NATIVE, CUDA, ENGINES_OF_ONNXRUNTIME),
    "litert": ("litert",),
    "tflite": ("tflite",),
    "tensorrt": ("onnxruntime", *ON_GPU),
    "torch": ("torch",),
    "executorch": ("executorch",),
}


def backends_of(kind: str) -> tuple[str, ...]:
    """Those that run an artefact, the usual one first; none for a kind that is not known."""
    found = _BACKENDS.get(kind.partition("-")[0], ())
    # Products whose scales are found as they come have no kernels on a GPU: all of them would go back to the processor.
    # Ours are the only ones that are fast in C of our own.
    others = ON_GPU if kind == "onnx-int8" else (NATIVE,)
    return tuple(one for one in found if one not in others)


def chosen_artefact(bundle: Bundle, backend: str | None) -> tuple[str, str]:
    """The artefact to run, and what runs it: the default one if it fits, else the first that does; on a GPU rather one
    that was made for it.

    backend: a backend, or an artefact; None for what the bundle's default artefact asks for
    errors:  ConfigError for what is neither, BundleError where none fits
    """
    backends = sorted({runtime for found in _BACKENDS.values() for runtime in found})
    if backend is not None and backend not in backends and not backends_of(backend):
        raise ConfigError(
            f"got backend {backend!r}, wanted one of {', '.join(backends)}, or an artefact of the bundle: "
            f"{', '.join(sorted(bundle.artefacts))}"
        )

    def rank(kind: str) -> tuple[bool, bool, str]:
        made_for_others = backend in ON_GPU and not kind.startswith("tensorrt-")
        return made_for_others, kind != bundle.default_artefact, kind

    kinds = sorted(bundle.artefacts, key=rank)
    fitting = [kind for kind in kinds if (found := backends_of(kind)) and backend in (None, kind, *found)]
    if not fitting:
        runtimes = sorted({runtime for kind in kinds for runtime in backends_of(kind)})
        raise BundleError(
            f"bundle {bundle.path} has {', '.join(sorted(bundle.artefacts))}, which {', '.join(runtimes)} can run, and "
            f"nothing for backend {backend!r}: choose one of these, or export what is missing"
        )
    kind = fitting[0]
    return kind, str(backend) if backend in backends_of(kind) else backends_of(kind)[0]
