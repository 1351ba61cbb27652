"""Pictures of a profile. Importing this needs the extra `profile` (matplotlib)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from edgeasr.profile.machine import Machine
from edgeasr.profile.tables import size_text

Report = Mapping[str, Any]

_INK, _MUTED, _GRID = "#1f2933", "#616e7c", "#e4e7eb"
_BLUE, _ORANGE, _GREEN, _RED = "#1f6feb", "#d9730d", "#2b8a3e", "#c92a2a"
_GOLD = "#f2b705"
# LSTM and GRU lie on each other almost: what is drawn first is wider, and empty.
_COLOURS = {"lstm": _ORANGE, "gru": "#0c8599", "tcn": "#862e9c"}
_MARKERS = {
    "lstm": {"marker": "s", "s": 130, "facecolor": "none", "linewidth": 1.8},
    "gru": {"marker": "X", "s": 55, "linewidth": 0},
    "tcn": {"marker": "D", "s": 45, "linewidth": 0},
}
_LINE_WIDTHS = {"lstm": 4.0, "gru": 1.3, "tcn": 1.3}
# In points, whatever the width of the line: dashes, or dashes and dots.
_FRAMES, _ENCODER_FRAMES = (6.0, 3.0), (9.0, 3.0, 2.0, 3.0)
_STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "edgeasr",
}
_STAR: Any = {"s": 200, "marker": "*", "color": _GOLD, "edgecolor": _INK, "zorder": 4}
_NUM_BARS = 16


def roofline(report: Report, axes: Axes) -> None:
    """Operations a second against operations a byte: the roofs, every product, the step and the recurrent networks."""
    peaks = report["peaks"]
    x = np.geomspace(0.05, 1000, 200)
    roofs = [(peaks["int8_gops"], _INK, "int8"), (peaks["fp32_gflops"], _MUTED, "fp32")]
    for peak, colour, name in roofs:
        axes.plot(
            x, np.minimum(peaks["gb_per_s"] * x, peak), color=colour, label=f"roof: {name}, weights where they lie"
        )
    axes.plot(
        x,
        np.minimum(peaks["dram_gb_per_s"] * x, peaks["int8_gops"]),
        color=_RED,
        ls="--",
        label="roof: int8, from DRAM",
    )
    operators = [one for one in report["step"]["operators"] if one["macs"] and one["gop_per_s"] > 0]
    for precision, colour in (("int8", _BLUE), ("fp32", _GREEN)):
        points = [one for one in operators if one["precision"] == precision]
        axes.scatter(
            [one["intensity"] for one in points],
            [one["gop_per_s"] for one in points],
            [12 + 6 * one["time_us"] ** 0.5 for one in points],
            color=colour,
            alpha=0.45,
            lw=0,
            label=f"products in {precision}",
        )
    step = report["step"]
    axes.scatter([step["intensity"]], [step["gop_per_s"]], label="a step", **_STAR)
    for row in report["baselines"][1:]:
        if row["vectors"] == 1 and row["vector_ms"] == report["baselines"][0]["vector_ms"]:
            rate = 2 * row["macs"] / row["step_us"] / 1000
            _mark(axes, row["network"], row["intensity"], rate, label=f"{_name(row)}, vector by vector")
    axes.set(
        xscale="log", yscale="log", xlabel="operations a byte", ylabel="10⁹ operations a second", xlim=(0.05, 1000)
    )
    axes.set_ylim(bottom=0.05)
    axes.set_title("Roofline: below the slope memory is the limit, below the plateau arithmetic")
    axes.legend(fontsize=8, loc="lower right")


def bandwidth(report: Report, axes: Axes) -> None:
    """The staircase: a rate for each working set, where the caches end, and where the model lies."""
    machine = Machine.from_dict(report["machine"])
    counts = sorted({point.threads for point in machine.bandwidth})
    for threads in counts[:1] + counts[-1:] if len(counts) > 1 else counts:
        for kernel, colour in (("copy", _BLUE), ("triad", _GREEN), ("read", _ORANGE)):
            points = sorted(
                (point.working_set_bytes, point.gb_per_s)
                for point in machine.bandwidth
                if point.threads == threads and point.kernel == kernel
            )
            if points:
                style = "-" if threads == counts[0] else ":"
                label = f"{kernel}, {threads} thread{'s' * (threads > 1)}"
                axes.plot(*zip(*points, strict=True), style, marker=".", color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set(ylim=(0, None), xlabel="working set", ylabel="GB/s")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: size_text(size)))
    top = axes.get_ylim()[1]
    for cache in machine.caches:
        axes.axvline(cache.size_bytes, color=_MUTED, lw=0.8, ls="--")
        axes.text(cache.size_bytes, top, f" L{cache.level}", va="top", color=_MUTED)
    step = report["step"]
    held = step["weight_bytes"] + step["state_read_bytes"] + step["state_written_bytes"]
    axes.axvline(held, color=_RED, lw=1.2)
    axes.text(held, top * 0.93, " weights and state", va="top", color=_RED, fontsize=8)
    axes.set_title("Memory bandwidth of this machine")
    axes.legend(fontsize=8)


def operators(report: Report, axes: Axes) -> None:
    """Time of a step by type of operator, and how much of it the roof explains."""
    step = report["step"]
    rows = [row for row in step["by_type"] if row["time_us"] > 0][:_NUM_BARS][::-1]
    floors = {row["type"]: 0.0 for row in rows}
    for one in step["operators"]:
        if one["type"] in floors:
            floors[one["type"]] += max(one["memory_floor_us"], one["compute_floor_us"])
    names = [f"{row['type']} ({row['count']})" for row in rows]
    axes.barh(names, [row["time_us"] for row in rows], color=_BLUE, label="measured")
    axes.barh(names, [floors[row["type"]] for row in rows], height=0.35, color=_ORANGE, label="at the roof")
    axes.set(xlabel=f"µs a step, which takes {step['time_us']:.0f} in all")
    axes.grid(visible=False, axis="y")
    axes.set_title("Operators by type, with their number")
    axes.legend(fontsize=8, loc="lower right")


def latency(report: Report, axes: Axes) -> None:
    """How long chunks take, against how long they last."""
    run = report["run"]
    times = np.asarray(run["chunk_times_ms"])
    if not len(times):
        axes.text(0.5, 0.5, "no chunk was run", ha="center", transform=axes.transAxes)
        return
    high = max(run["chunk_ms"]["p99"] * 1.5, 0.1)
    axes.hist(np.minimum(times, high), bins=60, range=(0, high), color=_BLUE)
    for rank, colour in (("p50", _GREEN), ("p95", _ORANGE), ("p99", _RED)):
        value = run["chunk_ms"][rank]
        axes.axvline(value, color=colour, label=f"{rank}: {value:.2f} ms")
    beyond = int((times > high).sum())
    longer = f"; {beyond} longer ones in the last bar" if beyond else ""
    axes.set(xlabel=f"ms for a chunk of {report['chunk_length_ms']} ms{longer}", ylabel="chunks")
    axes.set_title(f"Processing time of {len(times)} chunks, {report['decoder']} decoder")
    axes.legend(fontsize=8)


def chunks(report: Report, axes: Axes) -> None:
    """Bytes for each second of audio against the length of a chunk, beside recurrent networks, and the budget."""
    rows = report["chunks"]
    sizes = [row["chunk_ms"] for row in rows]
    axes.plot(
        sizes,
        [row["dram_bytes_per_s"] / 1e6 for row in rows],
        marker="o",
        color=_BLUE,
        label="edgeasr: weights and state",
    )
    axes.plot(
        sizes,
        [row["moved_bytes_per_s"] / 1e6 for row in rows],
        ":",
        marker=".",
        color=_MUTED,
        label="and between operators, in cache",
    )
    for row in report["baselines"][1:]:
        _draw_network(row, axes)
    best = report["recommended"]
    if best:
        axes.scatter([best["chunk_ms"]], [best["dram_bytes_per_s"] / 1e6], **_STAR)
        note = f"cheapest within {report['latency_ms']:g} ms"
        axes.annotate(
            note, (best["chunk_ms"], best["dram_bytes_per_s"] / 1e6), (8, 10), textcoords="offset points", fontsize=8
        )
    axes.set(xscale="log", yscale="log", xlabel="length of a chunk, ms", ylabel="MB for a second of audio")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_title("Bytes from memory, where no cache keeps anything between steps")
    axes.legend(fontsize=8)


def _draw_network(row: Mapping[str, Any], axes: Axes) -> None:
    """A recurrent network beside chunks: fed vector by vector a line, fed in chunks the span from weights that are
    read once a step to all that its operators read.
    """
    network, colour = row["network"], _COLOURS[row["network"]]
    once, read = row["dram_bytes_per_s"] / 1e6, row["read_bytes_per_s"] / 1e6
    if row["vectors"] == 1:
        width = _LINE_WIDTHS[network]
        pattern = tuple(points / width for points in (_FRAMES if row["vector_ms"] < 40 else _ENCODER_FRAMES))
        label = f"{_name(row)}, {row['vector_ms']} ms a vector"
        alpha = 0.45 if width > 2 else 1.0
        axes.axhline(once, color=colour, ls=(0, pattern), lw=width, alpha=alpha, dash_capstyle="butt", label=label)
        return
    chunk_ms = row["vectors"] * row["vector_ms"]
    axes.vlines(chunk_ms, once, max(read, once), color=colour, lw=_LINE_WIDTHS[network], alpha=0.45)
    label = f"{_name(row)}, {row['vectors']} x {row['vector_ms']} ms, and as read"
    _mark(axes, network, chunk_ms, once, label=label)
    _mark(axes, network, chunk_ms, read)


def _mark(axes: Axes, network: str, x: float, y: float, label: str | None = None) -> None:
    style: Any = _MARKERS[network]
    colour: Any = {"edgecolor": _COLOURS[network]} | ({} if "facecolor" in style else {"facecolor": _COLOURS[network]})
    axes.scatter([x], [y], zorder=5, label=label, **style, **colour)


def _name(row: Mapping[str, Any]) -> str:
    return str(row["network"]).upper()


PLOTS: dict[str, Callable[[Report, Axes], None]] = {
    "roofline": roofline,
    "bandwidth": bandwidth,
    "operators": operators,
    "latency": latency,
    "chunks": chunks,
}


def save_plots(report: Report, folder: Path) -> list[Path]:
    """All pictures as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PLOTS:
        path = folder / f"{name}.png"
        with rc_context(_STYLE):
            _figure(report, name).savefig(path, dpi=130)
        paths.append(path)
    return paths


def svg(report: Report, name: str) -> str:
    """A picture as an element of an HTML page."""
    drawn = io.StringIO()
    with rc_context(_STYLE):
        _figure(report, name).savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    element = drawn.getvalue()
    element = element[element.index("<svg") :]
    # Several pictures share a page: without names of its own, each would use the shapes of the first.
    return re.sub(r'((?:id="|"#|url\(#))', rf"\g<1>{name}-", element)


def _figure(report: Report, name: str) -> Figure:
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    PLOTS[name](report, figure.add_subplot())
    return figure
