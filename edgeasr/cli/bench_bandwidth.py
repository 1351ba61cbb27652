"""`edgeasr bench bandwidth`: our memory bandwidth beside mbw's."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from edgeasr.cli.terminal import StatusLine, print_note, write_out


def bandwidth(
    size: Annotated[int, typer.Option(min=1, max=1024, metavar="MB", help="Of each of the two arrays.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each program; the best counts.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Memory bandwidth as `edgeasr profile` measures it and as mbw does, in turn. Needs mbw: apt-get install mbw."""
    from edgeasr.cli.columns import columns
    from edgeasr.profile.bandwidth_check import compare_with_mbw
    from edgeasr.user_cache import cache_folder

    with StatusLine(sys.stderr) as status:
        found, missing = compare_with_mbw(
            cache_folder() / "native", size, rounds, lambda what, share: status.show(f"{what}: {share:.0%}")
        )
    for reason in missing:
        print_note(f"missing: {reason}")
    if json:
        rows = [asdict(one) | {"ratio": round(one.ratio, 4)} for one in found]
        write_out(jsonlib.dumps({"kernel": "copy", "threads": 1, "agreements": rows}) + "\n")
        return
    cells = [("copies, one thread", "GB/s", "of mbw's")]
    cells += [(f"edgeasr, {one.name}", f"{one.gb_per_s:.2f}", f"{one.ratio:.1%}") for one in found]
    cells.append(("mbw, memcpy", f"{found[0].mbw_gb_per_s:.2f}", ""))
    write_out("".join(f"{line}\n" for line in columns(cells, "<>>")))
