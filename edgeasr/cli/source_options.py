"""Options that say for a bundle's manifest what a part of it was made of."""

from __future__ import annotations

from typing import Annotated

import typer

Sources = Annotated[
    list[str],
    typer.Option("--source", metavar="TEXT", help="What it was made of, for the manifest; again for each of several."),
]
Licences = Annotated[
    list[str], typer.Option("--licence", metavar="TEXT", help="The licence of each source, in the same order.")
]


def sources_of(names: list[str], licences: list[str]) -> list[dict[str, str]]:
    """Names and licences as manifests have them. raises: a usage error where these are not as many"""
    if len(names) != len(licences):
        raise typer.BadParameter(
            f"got {len(names)} sources and {len(licences)} licences, wanted a --licence for each --source"
        )
    if empty := [one for one in (*names, *licences) if not one.strip()]:
        raise typer.BadParameter(f"got {empty[0]!r} as a source or its licence, wanted a name")
    return [{"name": name, "licence": licence} for name, licence in zip(names, licences, strict=True)]
