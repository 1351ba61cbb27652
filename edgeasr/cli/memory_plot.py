"""`edgeasr memory plot`: a picture of the memory at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.options import DecoderName, Model
from edgeasr.cli.terminal import write_out

_FORMATS = (".png", ".svg", ".pdf")


def plot(
    recording: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, best of a minute or some.")],
    output: Annotated[Path, typer.Option(metavar="PNG", help="Where to draw.")] = Path("memory.png"),
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="What the model was exported from; the bundled one without it."),
    ] = None,
    model: Model = None,
    decoder: DecoderName = None,
) -> None:
    """Draw what the memory stored, merged and skipped under waveform and words, and what each chunk attended to.

    Decisions and words are the model's; the attention is computed from its checkpoint. Needs edgeasr[train,profile].
    """
    if output.suffix.lower() not in _FORMATS:
        raise typer.BadParameter(f"got --output {output}, wanted a name that ends in {', '.join(_FORMATS)}")
    with needs_extra("train,profile"):
        import torch

        from edgeasr.memory_plot import draw, trace
        from edgeasr.train.checkpoint import Checkpoint, default_checkpoint
    from edgeasr.recognizer import Recognizer

    torch.set_num_threads(1)  # steps are too small to share: a second thread would only wait, at full load
    encoder = Checkpoint.load(checkpoint or default_checkpoint()).encoder()
    found = trace(Recognizer(model, decoder=decoder), encoder, recording)
    draw(found, output)
    write_out(f"{output}\n")
