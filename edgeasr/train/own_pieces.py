"""What a transducer in training says itself, for contexts with errors such as it makes.

Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099) without decoding: where a piece begins, the head is asked
once which, given the true pieces before it. That costs little for a whole file, and then nothing for a context.
"""

from __future__ import annotations

import torch

from edgeasr.train.ctc_alignment import Ints
from edgeasr.train.processes import Place
from edgeasr.train.transducer_frames import FrameSet
from edgeasr.train.transducer_head import TransducerHead

_BLANK_ID = 0
_AT_ONCE = 4096


@torch.no_grad()
def own_pieces(head: TransducerHead, frames: FrameSet, place: Place, bf16: bool) -> Ints:
    """The best piece of each frame in which one begins, (N,); each process asks for its share, all get the whole."""
    head.eval()
    device, numbers = head.emission_bias.device, frames.begun
    own = torch.zeros(len(numbers), dtype=torch.int64)
    for start in range(place.rank * _AT_ONCE, len(numbers), place.world * _AT_ONCE):
        asked = frames.frames(numbers[start : start + _AT_ONCE])
        outputs, absent, context = (part.to(device) for part in (asked.outputs, asked.absent, asked.context))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            scores = head(outputs, absent, context)
        scores[:, _BLANK_ID] = -torch.inf
        own[start : start + _AT_ONCE] = scores.argmax(-1).cpu()
    place.sum(own)
    said: Ints = own.numpy()
    return said
