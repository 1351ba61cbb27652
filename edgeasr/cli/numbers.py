"""Numbers that options take."""

from __future__ import annotations

import math

import typer


def finite(value: float | None) -> float | None:
    """A callback of an option: its value. Errors: a usage error for nan and inf, which no range refuses of itself"""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"got {value}, wanted a finite number")
    return value
