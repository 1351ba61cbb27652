"""The transducer of `edgeasr.transducer` in torch, on the output of the encoder, to be trained and then folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeasr.config import require
from edgeasr.errors import ConfigError
from edgeasr.neural import ReadOut
from edgeasr.piece_model import PieceModel
from edgeasr.train.crf import Doubles
from edgeasr.train.transducer_config import HeadConfig
from edgeasr.transducer import Transducer

_BLANK_ID = 0
# Share of a projection that is not for the output of the encoder: rounding makes some 2e-4, another encoder 0.8.
_OF_ANOTHER = 0.02


class ReadOutHead(nn.Module):
    """`edgeasr.neural.ReadOut`; at first every token is as likely."""

    def __init__(self, width: int, inner_width: int, tokens: int, dropout: float) -> None:
        super().__init__()
        self.expand_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner_width)
        self.contract = nn.Linear(inner_width, width)
        self.output_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, tokens)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def read_out(self, x: Tensor) -> Tensor:
        """(B, D) to scores, (B, V)."""
        x = x + self.dropout(self.contract(F.silu(self.expand(self.expand_norm(x)))))
        scores: Tensor = self.output(self.dropout(self.output_norm(x)))
        return scores

    def take_read_out(self, given: ReadOut) -> None:
        """The weights of it; norms scale and shift nothing, since what follows them does."""
        for norm in (self.expand_norm, self.output_norm):
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
        for linear, matrix, bias in (
            (self.expand, given.expand, given.expand_bias),
            (self.contract, given.contract, given.contract_bias),
            (self.output, given.output, given.output_bias),
        ):
            _set(linear.weight, matrix.T)
            _set(linear.bias, bias)

    def read_out_arrays(self) -> dict[str, Doubles]:
        """Those of `ReadOut`; scales and shifts of norms go into what follows them."""
        expand, expand_bias = _folded(self.expand_norm, self.expand)
        output, output_bias = _folded(self.output_norm, self.output)
        return {
            "expand": expand.T,
            "expand_bias": expand_bias,
            "contract": _doubles(self.contract.weight).T,
            "contract_bias": _doubles(self.contract.bias),
            "output": output.T,
            "output_bias": output_bias,
        }


class TextHead(ReadOutHead):
    """The language model of `edgeasr.piece_model`, of so many tokens."""

    def __init__(self, tokens: int, config: HeadConfig) -> None:
        width = config.text_width
        super().__init__(width, width, tokens, dropout=0.0)
        self.context = config.context
        self.embedding = nn.Embedding(tokens + 1, config.piece_width)
        self.input = nn.Linear(config.context * config.piece_width, width)

    def forward(self, context: Tensor) -> Tensor:
        """The last pieces, (B, K), to scores of the next one, (B, V): log-probabilities but for a constant."""
        return self.read_out(F.silu(self.input(self.embedding(context).flatten(1))))

    def log_probs(self, context: Tensor) -> Tensor:
        """Of the next piece, (B, V); 0 for the blank. It is not taught by what is made of them."""
        with torch.no_grad():
            log_probs: Tensor = self(context).float().log_softmax(-1)
            log_probs[:, _BLANK_ID] = 0.0
        return log_probs

    def take(self, given: PieceModel) -> None:
        """The weights of it: the opposite of `to_piece_model`."""
        _set(self.embedding.weight, given.embedding)
        _set(self.input.weight, given.input.T)
        _set(self.input.bias, given.input_bias)
        self.take_read_out(given)

    def to_piece_model(self) -> PieceModel:
        """The same computation without torch."""
        arrays = {
            "embedding": _doubles(self.embedding.weight),
            "input": _doubles(self.input.weight).T,
            "input_bias": _doubles(self.input.bias),
        }
        return PieceModel(self.context, **_floats(arrays | self.read_out_arrays()))


class TransducerHead(ReadOutHead):
    """Windows of the encoder's output and the pieces before them to scores; at first those are the emissions.

    emission: the encoder's layer from its output to emissions, which stays as it is
    """

    emission_weight: Tensor  # (V, C)
    emission_bias: Tensor  # (V,)

    def __init__(self, emission: nn.Linear, config: HeadConfig) -> None:
        """raises: ConfigError for an encoder that has no more tokens than channels: emissions do not say its output"""
        tokens, channels = emission.weight.shape
        if tokens <= channels:
            raise ConfigError(
                f"got a model of {tokens} tokens and {channels} channels, wanted more tokens than channels: a "
                "transducer reads emissions, which hold the whole output then; train with data.tokens"
            )
        super().__init__(config.width, config.inner_width, tokens, config.dropout)
        self.config = config
        self.register_buffer("emission_weight", emission.weight.detach().clone())
        self.register_buffer("emission_bias", emission.bias.detach().clone())
        self.projection = nn.Linear(channels, config.frame_width)
        self.acoustic = nn.Linear(config.window * config.frame_width, config.width)
        self.embedding = nn.Embedding(tokens + 1, config.piece_width)
        self.predictor = nn.Linear(config.predictor_context * config.piece_width, config.width)
        self.gain = nn.Parameter(torch.ones(1))
        self.text = TextHead(tokens, config)
        self.text_gain = nn.Parameter(torch.zeros(1))

    @property
    def vocabulary_size(self) -> int:
        """Tokens, the blank among them; of this number is the "piece" before the first."""
        return len(self.emission_bias)

    def forward(
        self, outputs: Tensor | None, absent: Tensor | None, context: Tensor, pairs: Tensor | None = None
    ) -> Tensor:
        """outputs: (B, behind + 1 + ahead, C) of the encoder; absent: as many, true where there is no frame;
        context: (B, K) the last pieces, the very last one last

        outputs and absent are None to ask the language model alone, and to teach it
        pairs: (2, N) of which outputs with which context, where these are not as many or not in the same order
        returns: (B, V) or (N, V), log-probabilities but for a constant
        """
        if outputs is None or absent is None:
            written: Tensor = self.text(context)
            return written
        projected = torch.where(absent[..., None], self.projection.bias, self.projection(outputs))
        heard, predicted = self.acoustic(projected.flatten(1)), self._predicted(context)
        emitted, written = self.log_probs(outputs[:, self.config.behind]), self.text.log_probs(context)
        if pairs is not None:
            heard, emitted = (part.index_select(0, pairs[0]) for part in (heard, emitted))
            predicted, written = (part.index_select(0, pairs[1]) for part in (predicted, written))
        return self.read_out(F.silu(heard + predicted)) + self.gain * emitted + self.text_gain * written

    def _predicted(self, context: Tensor) -> Tensor:
        predicted: Tensor = self.predictor(self.embedding(context[:, -self.config.predictor_context :]).flatten(1))
        return predicted

    def log_probs(self, outputs: Tensor) -> Tensor:
        """The emissions, (..., V)."""
        return F.linear(outputs, self.emission_weight, self.emission_bias).float().log_softmax(-1)

    @torch.no_grad()
    def take(self, given: Transducer) -> None:
        """The weights of a transducer on the same encoder: the opposite of `to_transducer`.

        raises: ConfigError for one of other sizes, or on another encoder
        """
        sizes = replace(HeadConfig.of(given), dropout=self.config.dropout)
        require(
            sizes == self.config and given.vocabulary_size == self.vocabulary_size,
            f"got a transducer of {given.vocabulary_size} tokens and {sizes}, wanted {self.vocabulary_size} and "
            f"{self.config}: take one that was trained alike",
        )
        emission = _doubles(self.emission_weight)
        centred, projection = emission - emission.mean(axis=0), given.projection.astype(np.float64)
        # What it makes of emissions depends on nothing but the output that they are made of.
        there = centred @ (np.linalg.pinv(centred) @ projection)
        require(
            bool(np.linalg.norm(projection - there) <= _OF_ANOTHER * np.linalg.norm(projection)),
            "got a transducer of another encoder, wanted one that was trained with this checkpoint: take that",
        )
        _set(self.projection.weight, projection.T @ centred)
        _set(self.projection.bias, given.absent)
        _set(self.acoustic.weight, given.acoustic.T)
        _set(self.acoustic.bias, given.bias)
        _set(self.embedding.weight, given.embedding)
        _set(self.predictor.weight, given.predictor.T)
        nn.init.zeros_(self.predictor.bias)
        nn.init.constant_(self.gain, given.gain)
        nn.init.constant_(self.text_gain, given.text_gain)
        self.text.take(given.text)
        self.take_read_out(given)

    def to_transducer(self) -> Transducer:
        """The same computation on emissions, without torch.

        Emissions l are W z + b but for a constant over the tokens, z the output, W and b centred over the tokens. So
        z = pinv(W) (l - b): pinv(W) of a constant is 0.
        """
        emission, emission_bias = _doubles(self.emission_weight), _doubles(self.emission_bias)
        inverse = np.linalg.pinv(emission - emission.mean(axis=0))
        projection, projection_bias = _doubles(self.projection.weight) @ inverse, _doubles(self.projection.bias)
        arrays = {
            "projection": projection.T,
            "projection_bias": projection_bias - projection @ (emission_bias - emission_bias.mean()),
            "absent": projection_bias,
            "acoustic": _doubles(self.acoustic.weight).T,
            "embedding": _doubles(self.embedding.weight),
            "predictor": _doubles(self.predictor.weight).T,
            "bias": _doubles(self.acoustic.bias) + _doubles(self.predictor.bias),
            **self.read_out_arrays(),
        }
        gain, text_gain = float(self.gain.detach()), float(self.text_gain.detach())
        text, config = self.text.to_piece_model(), self.config
        return Transducer(config.behind, config.ahead, **_floats(arrays), gain=gain, text=text, text_gain=text_gain)


def _folded(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Doubles, Doubles]:
    """Matrix and bias of a layer that takes what is normal instead of what comes from the norm."""
    weight = _doubles(linear.weight)
    return weight * _doubles(norm.weight), _doubles(linear.bias) + weight @ _doubles(norm.bias)


@torch.no_grad()
def _set(parameter: Tensor, array: NDArray[Any]) -> None:
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _doubles(tensor: Tensor) -> Doubles:
    array: Doubles = tensor.detach().cpu().double().numpy()
    return array


def _floats(arrays: dict[str, Doubles]) -> dict[str, Any]:
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
