"""Transducers that teach another: together they hear better than each, and what they say of all pieces is more to learn
from than a text, which says of one that it is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeasr.array_files import refuse_other_kind
from edgeasr.config import require
from edgeasr.errors import BundleError
from edgeasr.train.transducer_config import HeadConfig
from edgeasr.train.transducer_head import TransducerHead
from edgeasr.transducer import Transducer


@dataclass(frozen=True)
class Teacher:
    """A file that `edgeasr.train.transducer` wrote for the same encoder, and how much it counts beside others.

    raises: ConfigError
    """

    path: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, f"the weight of {self.path} is {self.weight}: it must be a positive number")


class Teachers:
    """Several as one: the weighted mean of their log-probabilities. They hear undamaged frames, and know what was said.

    emission: the encoder's layer from its output to emissions
    config:   of the head that they teach, whose windows and contexts they are given
    raises:   BundleError for a file that is no transducer, ConfigError for one that needs to know more
    """

    def __init__(self, given: Sequence[Teacher], emission: nn.Linear, config: HeadConfig, *, bf16: bool) -> None:
        self._device, self._bf16 = emission.weight.device, bf16
        self._heads, whole = [], sum(one.weight for one in given)
        for one in given:
            head = head_of(read_transducer(one.path), emission)
            require(
                (head.config.behind, head.config.ahead) == (config.behind, config.ahead)
                and head.config.context <= config.context,
                f"{one.path} hears {head.config.behind} frames behind and {head.config.ahead} ahead and knows "
                f"{head.config.context} pieces, wanted {config.behind}, {config.ahead} and no more than "
                f"{config.context}: take another teacher",
            )
            self._heads.append((head.eval(), one.weight / whole))

    @torch.no_grad()
    def log_probs(self, outputs: Tensor, absent: Tensor, context: Tensor, pairs: Tensor) -> Tensor:
        """(N, V); what is given is as in `TransducerHead.forward`."""
        outputs, absent, context, pairs = (part.to(self._device) for part in (outputs, absent, context, pairs))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            said = [
                weight * head(outputs, absent, context[:, -head.config.context :], pairs).float().log_softmax(-1)
                for head, weight in self._heads
            ]
        return torch.stack(said).sum(0).log_softmax(-1)


def read_transducer(path: Path) -> Transducer:
    """raises: BundleError for a file that is missing, damaged or something else"""
    refuse_other_kind(path, "transducer")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the transducer {path}: {error}: check the path") from error
    return Transducer.unpacked(content, str(path))


def head_of(transducer: Transducer, emission: nn.Linear) -> TransducerHead:
    """The same in torch, on the encoder of `emission`. raises: ConfigError for one that was trained on another"""
    head = TransducerHead(emission, HeadConfig.of(transducer)).to(emission.weight.device)
    head.take(transducer)
    return head
