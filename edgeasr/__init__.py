"""Streaming speech recognition on small boards; start reading at `recognizer.py`."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeasr.bundle import Bundle
    from edgeasr.recognizer import Recognizer

# What is heard here, and that something is, stays here. ONNX Runtime and Hugging Face's packages tell their makers of
# their use unless these are set before they are imported.
for _unwanted in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_unwanted, "1")

__version__ = "0.1.0"
__all__ = ["Bundle", "Recognizer", "__version__"]

_MODULE_OF = {"Bundle": "edgeasr.bundle", "Recognizer": "edgeasr.recognizer"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import edgeasr` stays light."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
