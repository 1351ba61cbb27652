"""Where ONNX Runtime computes a graph: on the processor, on an NVIDIA GPU, or there in engines that it builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from edgeasr.backends.engine_cache import engine_folder, graph_sha256, runtime_folder
from edgeasr.errors import ExtraMissingError

Device = Literal["cpu", "cuda", "tensorrt"]
Provider = str | tuple[str, Mapping[str, str]]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_WANTED: Mapping[Device, str] = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


def providers_for(device: Device, model: Path | bytes, available: Sequence[str]) -> list[Provider]:
    """Providers in the order in which they get operators: what one does not take, the next does.

    available: what this build of ONNX Runtime has
    errors:    ExtraMissingError for one that it lacks, BundleError for a file that is no graph, AcceleratorError where
               engines cannot be kept
    """
    if device == "cpu":
        return [CPU]
    if _WANTED[device] not in available:
        raise _missing(_WANTED[device], f"this build has {', '.join(available)}")
    if device == "cuda":
        return [CUDA, CPU]
    return [(TENSORRT, _tensorrt_options(model)), *([CUDA] if CUDA in available else []), CPU]


def require_provider(device: Device, used: Sequence[str]) -> None:
    """Where a provider's libraries cannot be loaded, ONNX Runtime goes on without it. errors: ExtraMissingError then"""
    if _WANTED[device] not in used:
        raise _missing(_WANTED[device], "its libraries cannot be loaded")


def _missing(provider: str, why: str) -> ExtraMissingError:
    return ExtraMissingError(
        f"ONNX Runtime has no {provider} ({why}): put NVIDIA's onnxruntime-gpu for this JetPack in the place of "
        "onnxruntime (docs/jetson.md), or take --backend onnxruntime"
    )


def _tensorrt_options(model: Path | bytes) -> dict[str, str]:
    """Engines are built at the first start, which takes minutes, and kept by the hash of their graph."""
    from edgeasr.onnx_reader import read_onnx  # protobuf, which the processor does without

    content = read_onnx(model)
    halves = any(one.dtype == "float16" for one in content.initializers.values())
    scaled = any(node.op_type == "QuantizeLinear" for node in content.nodes)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(runtime_folder(graph_sha256(model))),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engine_folder()),
        "trt_fp16_enable": str(int(halves)),
        "trt_int8_enable": str(int(scaled)),
    }
