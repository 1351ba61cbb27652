"""`edgeasr transducer`: what greedy decoding knows of the pieces before, put into bundles and taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeasr.cli.source_options import Licences, Sources, sources_of
from edgeasr.cli.terminal import write_out

transducer = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Transducers of greedy decoding: add to a bundle, take out."
)

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder or .edgeasr file; the model stays as it is.")]
Output = Annotated[
    Path | None, typer.Option(metavar="BUNDLE", help="Where to write the new bundle instead of in the old one's place.")
]


@transducer.command()
def add(
    bundle: Bundle,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What `python -m edgeasr.train.transducer` wrote, or a bundle's own."),
    ],
    source: Sources,
    licence: Licences,
    output: Output = None,
) -> None:
    """Put a transducer into a bundle, in the place of one that is there. It must be of the same checkpoint."""
    from edgeasr.bundle_transducer import add_transducer

    made = add_transducer(bundle, file, sources_of(source, licence), output or bundle)
    write_out(f"Wrote {made.path}\n")


@transducer.command()
def remove(bundle: Bundle, output: Output = None) -> None:
    """Take the transducer out of a bundle: greedy decoding is CTC's best path then."""
    from edgeasr.bundle_transducer import remove_transducer

    write_out(f"Wrote {remove_transducer(bundle, output or bundle).path}\n")
