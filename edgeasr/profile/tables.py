"""A profile in words and rows, which the terminal and the page show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]

NUM_OPERATORS = 15


@dataclass(frozen=True)
class Section:
    """A heading, sentences and a table; the first column of a table is text, the others figures.

    dispensable: titles of columns that a narrow terminal can do without, the first to go first
    """

    name: str
    title: str
    lines: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    dispensable: tuple[str, ...] = ()


def sections(report: Report) -> list[Section]:
    """All of a profile, in the order in which it is read."""
    made = [
        _overview(report),
        _step(report),
        _operators(report),
        *([_memory(report)] if report["memory"] else []),
        _chunks(report),
        _run(report),
        *([_baselines(report)] if report["baselines"] else []),
        _boards(report),
        _machine(report),
    ]
    if report["missing"]:
        made.append(Section("missing", "What could not be measured", tuple(report["missing"])))
    return made


def _overview(report: Report) -> Section:
    step, run = report["step"], report["run"]
    threads = f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    lines = [
        f"{report['model']}, {report['artefact']} on {report['backend']}, {threads}, "
        f"{report['decoder']} decoder, chunks of {report['chunk_length_ms']} ms, on {report['machine']['name']}.",
        f"A second of audio takes {run['rtf'] * 1000:.1f} ms of processor time; half of the chunks take "
        f"{run['chunk_ms']['p50']:.2f} ms or less, 99 % take {run['chunk_ms']['p99']:.2f} ms or less.",
        f"A step takes {step['times_floor']:.1f} times what its {step['bound']} floor would be.",
    ]
    lines += _against_lstm(report["baselines"])
    return Section("overview", "Overview", tuple(lines))


def _against_lstm(baselines: Sequence[Mapping[str, Any]]) -> list[str]:
    """An LSTM fed one vector a step, and in chunks, where it asks for less."""
    if not baselines:
        return []
    ours, *others = baselines
    lines = []
    for row in others:
        if row["network"] != "lstm":
            continue
        once, read = (row[key] / ours[key] for key in ("dram_bytes_per_s", "read_bytes_per_s"))
        if row["vectors"] == 1:
            lines.append(
                f"An LSTM with as many bytes of weights, fed a vector every {row['vector_ms']} ms, asks memory for "
                f"{once:.1f} times as many bytes."
            )
        else:
            lines.append(
                f"In chunks of {row['vectors']} x {row['vector_ms']} ms it asks for {once:.1f} times as many where a "
                f"cache keeps weights during a step, and for {read:.1f} times as many where each read of a weight is "
                "from memory."
            )
    return lines


def _holder(step: Mapping[str, Any]) -> str:
    """Which cache has room for all that a step goes through."""
    if not step["caches"]:
        return "how large the caches are is not known"
    return f"{step['held_by'] or 'no cache of this machine'} holds them together"


def _step(report: Report) -> Section:
    step = report["step"]
    weights = megabytes(step["weight_bytes"])
    lines = (
        f"{weights} of weights and {megabytes(step['state_read_bytes'] + step['state_written_bytes'])} of state "
        f"(read and written) a step; {_holder(step)}.",
        _timing(step),
    )
    rows = [
        ("time of a step", f"{step['time_us']:.0f} µs"),
        ("sum of its operators", f"{step['operators_us']:.0f} µs"),
        ("floor by memory", f"{step['memory_floor_us']:.0f} µs"),
        ("floor by arithmetic", f"{step['compute_floor_us']:.0f} µs"),
        ("multiply-adds, int8 and fp32", f"{step['int8_macs'] / 1e6:.2f} M, {step['fp32_macs'] / 1e6:.2f} M"),
        ("operations a byte", f"{step['intensity']:.2f}"),
        ("achieved", f"{step['gb_per_s']:.2f} GB/s, {step['gop_per_s']:.1f} GOP/s"),
        ("handed between operators", megabytes(step["activation_bytes"])),
    ]
    for cache in step["caches"]:
        fits = "weights and state fit" if cache["weights_and_state_fit"] else "weights alone fit"
        rows.append(
            (
                _cache_name(cache),
                fits if cache["weights_fit"] else "weights do not fit",
            )
        )
    rows += [(f"{name.replace('_', ' ')}, counted", f"{value:,}") for name, value in step["counters"].items()]
    return Section("step", "A step", lines, ("", ""), tuple(rows))


def _timing(step: Mapping[str, Any]) -> str:
    """How the operators' times were taken, and how they add up."""
    count, share = len(step["operators"]), step["operators_share"]
    if step["profiled_us"] is None:
        return f"The {count} operators, with a clock between them, add up to {share:.0%} of the step's time."
    return (
        f"The {count} operators, timed in stretches, add up to {share:.0%} of the step's time. ONNX Runtime's profiler "
        f"makes {step['profiled_us']:.0f} µs of them, its own work included."
    )


def _operators(report: Report) -> Section:
    step = report["step"]
    rows = [_operator(one) for one in step["operators"][:NUM_OPERATORS]]
    header = (
        "operator",
        "µs",
        "weights KB",
        "state KB",
        "activations KB",
        "k multiply-adds",
        "op/B",
        "GB/s",
        "GOP/s",
        "of roof",
        "bound by",
    )
    most = ", ".join(f"{row['count']} {row['type']} {row['time_us']:.0f} µs" for row in step["by_type"][:5])
    lines = (f"The longest {len(rows)} of {len(step['operators'])}; by type: {most}.",)
    dispensable = (
        "activations KB",
        "state KB",
        "k multiply-adds",
        "GOP/s",
        "GB/s",
        "op/B",
        "bound by",
        "weights KB",
        "of roof",
    )
    return Section("operators", "Operators", lines, header, tuple(rows), dispensable)


def _operator(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        shortened(f"{one['type']} {one['name']}", 46),
        f"{one['time_us']:.1f}",
        *(f"{one[key] / 1e3:.1f}" for key in ("weight_bytes", "state_bytes", "activation_bytes")),
        f"{one['macs'] / 1e3:.0f}",
        *(f"{one[key]:.1f}" for key in ("intensity", "gb_per_s", "gop_per_s")),
        f"{one['roof_share']:.0%}",
        one["bound"],
    )


def _memory(report: Report) -> Section:
    memory = report["memory"]
    return Section(
        "memory",
        "The memory graph",
        (
            f"Runs once in {memory['every_s']:g} s: {megabytes(memory['weight_bytes'])} of weights, "
            f"{memory['time_us']:.0f} µs (its operators add up to {memory['operators_share']:.0%}), "
            f"{megabytes(memory['dram_bytes_per_s'])} for each second of audio.",
        ),
    )


def _chunks(report: Report) -> Section:
    best = report["recommended"]
    if best is None:
        said = f"No length of chunk is within {report['latency_ms']:g} ms."
    else:
        other = "" if best["is_the_graphs"] else " This graph has another: export one with it."
        said = f"Cheapest within {report['latency_ms']:g} ms: chunks of {best['chunk_ms']} ms.{other}"
    rows = tuple(
        (
            f"{row['chunk_ms']} ms",
            f"{row['dram_bytes_per_s'] / 1e6:.1f}",
            f"{row['moved_bytes_per_s'] / 1e6:.1f}",
            f"{row['step_ms']:.2f}",
            f"{row['latency_ms']:.0f}",
        )
        for row in report["chunks"]
    )
    header = ("chunk", "MB/s from memory", "MB/s with activations", "ms a step", "latency ms")
    lines = (
        "Bytes for each second of audio where no cache keeps anything between steps, modelled; only "
        f"{report['chunk_length_ms']} ms was run.",
        said,
    )
    dispensable = ("MB/s with activations",)
    return Section("chunks", "Length of a chunk", lines, header, rows, dispensable)


def _run(report: Report) -> Section:
    run = report["run"]
    pace = "in real time" if run["real_time"] else "as fast as possible"
    rows = [
        ("processor time for a second of audio", f"{run['rtf']:.4f} s"),
        ("chunk: median, 95 %, 99 %", " / ".join(_ms(run["chunk_ms"][rank]) for rank in ("p50", "p95", "p99"))),
        ("first word: median, 95 %", " / ".join(_ms(run["first_token_latency_ms"][rank]) for rank in ("p50", "p95"))),
        (
            "end of a segment: median, 95 %",
            " / ".join(_ms(run["endpoint_latency_ms"][rank]) for rank in ("p50", "p95")),
        ),
        ("chunks that took longer than they last", str(run["late_chunks"])),
        *_sensors(run["sensors"]),
    ]
    lines = (f"{run['audio_s']:.0f} s of audio {pace}, {run['words']} words.",)
    return Section("run", "The run", lines, ("", ""), tuple(rows))


def _baselines(report: Report) -> Section:
    rows = tuple(
        (
            f"{row['network']}, {row['vectors']} x {row['vector_ms']} ms a step",
            megabytes(row["weight_bytes"]),
            megabytes(row["state_bytes"]),
            f"{row['intensity']:.1f}",
            f"{row['step_us']:.0f}",
            f"{row['ms_per_s']:.1f}",
            f"{row['dram_bytes_per_s'] / 1e6:.1f}",
            f"{row['read_bytes_per_s'] / 1e6:.1f}",
        )
        for row in report["baselines"]
    )
    header = ("network in int8", "weights", "state", "op/B", "µs a step", "ms for 1 s", "MB/s from memory", "MB/s read")
    lines = (
        "From memory: each weight once a step, and the state, where no cache keeps them between steps. Read: a weight "
        "each time that an operator reads it.",
        "The baselines' weights are random; the bytes and the time do not depend on them.",
    )
    dispensable = ("state", "op/B", "weights", "µs a step", "ms for 1 s")
    return Section("baselines", "Against recurrent networks", lines, header, rows, dispensable)


def _sensors(readings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was read; what was not is said at the end."""
    parts = ", ".join(f"{name} {megabytes(size, 0)}" for name, size in readings["memory_parts"].items())
    resident = f"{megabytes(readings['peak_rss_bytes'], 0)} at most" + (f"; at the end {parts}" if parts else "")
    rows = [
        ("resident memory", resident),
        ("page faults, minor and major", f"{readings['minor_faults']:,} / {readings['major_faults']:,}"),
        (
            "context switches, own and forced",
            f"{readings['voluntary_switches']:,} / {readings['involuntary_switches']:,}",
        ),
        ("processor time, with reading the file", f"{readings['cpu_s']:.2f} s in {readings['duration_s']:.2f} s"),
    ]
    if readings["temperature_c"]:
        rows.append(("temperature", _span(readings["temperature_c"], 1.0, "°C")))
    if readings["clock_hz"]:
        rows.append(("clock", _span(readings["clock_hz"], 1e6, "MHz")))
    if readings["throttled"] is not None:
        rows.append(("throttled", ", ".join(readings["throttled"]) or "no"))
    if readings["energy_j"] is not None:
        rows.append((f"energy, {readings['energy_of']}", f"{readings['energy_j']:.1f} J"))
    return rows


def _span(span: Mapping[str, float], unit: float, name: str) -> str:
    return f"{span['lowest'] / unit:.0f} to {span['highest'] / unit:.0f} {name}"


def _boards(report: Report) -> Section:
    here, step_ms = report["predictions"]["here"], report["step"]["time_us"] / 1000
    rows = tuple(
        (
            board["device"],
            f"{board['time_ms']:.1f}",
            f"{board['real_time_factor']:.3f}",
            f"{board['demand_gb_per_s'] * 1000:.0f}",
            board["bound"],
            "yes" if board["real_time"] else "no",
            {True: "yes", False: "no", None: "-"}[board["fits_memory"]],
        )
        for board in report["predictions"]["boards"]
    )
    header = ("board", "ms a step", "RTF of steps", "MB/s from memory", "bound by", "keeps up", "fits its memory")
    lines = (
        "From their data sheets, not measured; without features and decoder.",
        f"The same formula says {here['time_ms']:.2f} ms of this machine, where {step_ms:.2f} ms were measured: "
        f"{here['time_ms'] / step_ms:.2f} of it.",
    )
    dispensable = ("fits its memory", "MB/s from memory", "RTF of steps", "bound by")
    return Section("boards", "Predicted on other boards", lines, header, rows, dispensable)


def _machine(report: Report) -> Section:
    machine, peaks = report["machine"], report["peaks"]
    rows = [
        (
            _cache_name(cache),
            "-" if cache["measured_gb_per_s"] is None else f"{cache['measured_gb_per_s']:.1f} GB/s",
        )
        for cache in machine["caches"]
    ]
    rows += [
        ("memory, largest working set", f"{peaks['dram_gb_per_s']:.1f} GB/s"),
        ("products in int8", f"{peaks['int8_gops']:.0f} GOP/s"),
        ("products in fp32", f"{peaks['fp32_gflops']:.0f} GFLOP/s"),
    ]
    kernels = {"c": "compiled C", "numpy": "numpy"}.get(machine["kernel_source"], machine["kernel_source"])
    cores = f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"
    lines = (f"{machine['cpu']}, {cores}; measured with {kernels}, as many threads as the model.",)
    return Section("machine", "The machine", lines, ("", ""), tuple(rows))


def _cache_name(cache: Mapping[str, Any]) -> str:
    return f"L{cache['level']}, {size_text(cache['size_bytes'])}"


def size_text(size_bytes: float) -> str:
    """16 KB, 1 MB: powers of 1,024, as caches are told."""
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size_bytes >= size:
            return f"{size_bytes / size:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def megabytes(size_bytes: float, places: int = 2) -> str:
    """In MB of 10^6 bytes."""
    return f"{size_bytes / 1e6:.{places}f} MB"


def shortened(text: str, length: int) -> str:
    """Its beginning and its end, where it is longer."""
    if len(text) <= length:
        return text
    first, last = length // 2, length - length // 2 - 1
    return f"{text[:first]}…{text[len(text) - last :]}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"
