"""Graphs in PyTorch itself: the weights of a bundle in the encoder that they were trained in, to compare with."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec
from edgeasr.config import ModelConfig
from edgeasr.errors import BundleError, ConfigError, ExtraMissingError

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load, save
except ImportError as error:
    raise ExtraMissingError("PyTorch is not installed: pip install 'edgeasr[train]'") from error

from edgeasr.converters.signature import graph_of_part
from edgeasr.encoder import Encoder

Arrays = dict[str, NDArray[np.generic]]

_CONFIG = "config"  # the key of the file's metadata
_HEADER = struct.Struct("<Q")  # before the header of a safetensors file: its length


class TorchGraph:
    """One graph of a bundle. Streams share it.

    model:   safetensors with the config of the model in its metadata; one file for all parts. Nothing is unpickled
    threads: of the process, while it runs: torch has no others
    part:    which of the graphs
    errors:  BundleError for what is no such file, or a part that no model has
    """

    def __init__(self, model: Path | bytes, threads: int, part: str) -> None:
        content = model if isinstance(model, bytes) else model.read_bytes()
        name = "the model" if isinstance(model, bytes) else model
        try:
            encoder = _read_encoder(content)
        except (SafetensorError, ConfigError, RuntimeError, KeyError, ValueError, struct.error) as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise BundleError(f"PyTorch cannot load {name} ({reason[0].strip()}): export the bundle again") from error
        self._graph, self._threads = graph_of_part(encoder, part), threads
        inputs = self._graph.example_inputs()
        with torch.inference_mode():
            outputs = self._graph(*(tensor for _, tensor in inputs))
        self.inputs = _specs(inputs)
        self.outputs = _specs(zip(self._graph.output_names(), outputs, strict=True))

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name, not to be written to; `inputs` may hold more than the graph reads."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            outputs = self._graph(*(_tensor(inputs[name]) for name in self.inputs))
        return {name: tensor.numpy() for name, tensor in zip(self.outputs, outputs, strict=True)}


def _specs(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tuple(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in tensors}


def weights_file(encoder: Encoder) -> bytes:
    """The weights of an encoder with its config, as `TorchGraph` reads them."""
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    return bytes(save(weights, {_CONFIG: json.dumps(encoder.config.to_dict())}))


def _read_encoder(content: bytes) -> Encoder:
    weights = load(content)
    (length,) = _HEADER.unpack_from(content)
    metadata = json.loads(content[_HEADER.size : _HEADER.size + length])["__metadata__"]
    encoder = Encoder(ModelConfig.from_dict(json.loads(metadata[_CONFIG])))
    encoder.load_state_dict(weights)
    return encoder.eval()


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    """Without a copy where torch may have the memory: the first state of a stream is not to be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
