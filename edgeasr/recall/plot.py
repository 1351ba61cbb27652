"""The benchmark as a picture: accuracy and gradient over distance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Colours that people with any colour vision tell apart (Okabe and Ito).
_STYLES = {"hierarchy": ("#0072B2", "o"), "lstm": ("#D55E00", "s"), "gru": ("#E69F00", "^"), "tcn": ("#009E73", "D")}
_LEAST_NORM = 1e-12


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG (or what the suffix says) of a report of `recall_report`."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    right, reaching = figure.subplots(1, 2)
    rows = report["rows"]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        colour, marker = _STYLES[model]
        distances = [row["distance"] for row in own]
        style = {"color": colour, "marker": marker, "label": model}
        right.plot(distances, [100 * row["accuracy"] for row in own], **style)
        reaching.plot(distances, [max(row["gradient_norm"], _LEAST_NORM) for row in own], **style)
    right.axhline(100 * report["chance"], color="grey", linestyle=":", label="chance")
    right.set(xscale="log", ylim=(0, 104), title="Recalled, %", xlabel="vectors between pair and question")
    reaching.set(xscale="log", yscale="log", title="Gradient that reaches the pair", xlabel=right.get_xlabel())
    if min(row["gradient_norm"] for row in rows) < _LEAST_NORM:
        reaching.set_ylabel(f"{_LEAST_NORM:.0e} stands for less")
    for axes in (right, reaching):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, loc="center right")
    figure.savefig(path, dpi=120)
