"""Graphs to ExecuTorch programs for XNNPACK, in fp32 or with their linear layers in dynamic int8.

A program knows inputs and outputs by their place. A second method of it, `names`, returns their names as the UTF-8 of
JSON, which is what runners read. Needs an environment of its own: executorch brings pandas and scikit-learn along.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn
from torch._export.verifier import SpecViolationError

from edgeasr.backends.executorch import NAMES, quiet
from edgeasr.converters.signature import Graph
from edgeasr.errors import BundleError

with quiet():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


@torch.no_grad()
def to_executorch(graph: Graph, precision: str) -> bytes:
    """The graph as a program that XNNPACK runs as far as it can, and ExecuTorch's own kernels where it cannot.

    precision: fp32, or int8 for weights of linear layers, per output channel, with activations quantised as they come
    errors:    BundleError where an operator cannot be lowered
    """
    inputs = graph.example_inputs()
    tensors = tuple(tensor for _, tensor in inputs)
    with quiet():
        try:
            module: nn.Module = graph.eval()
            if precision == "int8":
                module = _quantized(module, tensors)
            exported = torch.export.export(module, tensors, strict=False)
            lowered = to_edge_transform_and_lower(
                exported,
                # The first takes whole quantised products, the second what is left.
                partitioner=[XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()],
                constant_methods={NAMES: _as_tensor([name for name, _ in inputs], graph.output_names())},
            )
            return bytes(lowered.to_executorch().buffer)
        except (RuntimeError, SpecViolationError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BundleError(f"ExecuTorch cannot lower the {graph.name} graph ({reason}): export to ONNX") from error


class _Linear(XNNPACKQuantizer):  # type: ignore[misc]
    """Annotates linear layers alone: for others it would first turn whole numbers that are added into fp32."""

    def transform_for_annotation(self, model: nn.Module) -> nn.Module:
        return model


def _quantized(module: nn.Module, tensors: tuple[Tensor, ...]) -> nn.Module:
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    prepared = prepare_pt2e(torch.export.export(module, tensors, strict=False).module(), _Linear().set_global(config))
    prepared(*tensors)
    quantized: nn.Module = convert_pt2e(prepared)
    return quantized


def _as_tensor(inputs: list[str], outputs: list[str]) -> Tensor:
    text = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    return torch.tensor(list(text), dtype=torch.uint8)
