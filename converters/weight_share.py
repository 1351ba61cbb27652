"""How much of a converted file is still in fp32: what was not quantised."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence

from edgeasr.onnx_reader import read_onnx

Constant = tuple[bool, int]  # whether it is in fp32, and its bytes

# Of weights; shapes, indices and sums are in others.
_TYPES = ("float32", "bfloat16", "float16", "int8", "uint8", "int4", "uint4")


def fp32_share(files: Sequence[bytes], suffix: str) -> float | None:
    """Share of the bytes of all constants, weights and scales, that are in fp32.

    files:   the parts of an artefact, each once
    suffix:  of their names; None is given for a format that is not read here
    """
    reader = next((read for end, read in _READERS.items() if suffix.endswith(end)), None)
    if reader is None:
        return None
    found = [constant for content in files for constant in reader(content)]
    total = sum(size for _, size in found)
    return sum(size for exact, size in found if exact) / total if total else None


def _onnx(content: bytes) -> Iterable[Constant]:
    weights = [one for one in read_onnx(content).initializers.values() if one.dtype in _TYPES]
    return [(one.dtype == "float32", one.size_bytes) for one in weights]


def _tflite(content: bytes) -> Iterator[Constant]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    types = {getattr(schema.TensorType, name.upper(), None) for name in _TYPES}
    seen = set()
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        for tensor in (graph.Tensors(j) for j in range(graph.TensorsLength())):
            size = model.Buffers(tensor.Buffer()).DataLength()
            if size and tensor.Type() in types and tensor.Buffer() not in seen:
                seen.add(tensor.Buffer())
                yield tensor.Type() == schema.TensorType.FLOAT32, size


def _safetensors(content: bytes) -> Iterator[Constant]:
    (length,) = struct.unpack_from("<Q", content)
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__" and entry["dtype"] != "I64":
            begin, end = entry["data_offsets"]
            yield entry["dtype"] == "F32", end - begin


_READERS = {".onnx": _onnx, ".tflite": _tflite, ".safetensors": _safetensors}
