"""The profile of a model on this machine, ready for JSON; docs/profile.md says what each key means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeasr import __version__
from edgeasr.devices.profile import device_profiles
from edgeasr.metrics import percentiles
from edgeasr.profile.machine import Machine
from edgeasr.profile.model_profile import Fed, ModelProfile
from edgeasr.profile.operators import GraphProfile, Operator
from edgeasr.profile.prediction import Work, predict, step_work
from edgeasr.profile.roofline import (
    Placement,
    holding_cache,
    peak_gops,
    place_operator,
    place_step,
    working_set_bytes,
)
from edgeasr.profile.run import StreamRun
from edgeasr.profile.sensors import Readings
from edgeasr.profile.traffic import ChunkTraffic, chunk_traffic, recommended
from edgeasr.recognizer import Recognizer

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Measured:
    """What was run: the graphs, a stream and what sensors said meanwhile, recurrent networks (or none)."""

    model: ModelProfile
    run: StreamRun
    readings: Readings
    baselines: Sequence[Fed] = ()


def profile_report(recognizer: Recognizer, machine: Machine, measured: Measured, latency_ms: float) -> dict[str, Any]:
    """Everything that is known.

    latency_ms: for which a length of chunk is recommended
    """
    model, config = recognizer.model, recognizer.model.config
    step = measured.model.step
    chunk_ms = round(config.chunk_s * 1000)
    traffic = chunk_traffic(step, config)
    ours = Fed("edgeasr", step, round(config.frame_s * 1000), config.encoder.chunk_frames)
    resident = measured.readings.peak_rss_bytes
    missing = [*machine.missing, *measured.model.counted.missing, *measured.readings.missing]
    return {
        "format_version": FORMAT_VERSION,
        "edgeasr": __version__,
        "model": model.name,
        "artefact": model.artefact,
        "backend": model.backend,
        "decoder": recognizer.decoder,
        "threads": model.threads,
        "chunk_length_ms": chunk_ms,
        "machine": machine.to_dict(),
        "peaks": {
            "int8_gops": peak_gops(machine, model.threads, int8=True),
            "fp32_gflops": peak_gops(machine, model.threads, int8=False),
            "gb_per_s": machine.gb_per_s(working_set_bytes(step), model.threads),
            "dram_gb_per_s": machine.dram_gb_per_s(model.threads),
        },
        "step": graph_dict(step, machine) | {"counters": dict(measured.model.counted.values)},
        "memory": _memory_dict(measured.model, machine),
        "chunks": [_rounded(asdict(one)) for one in traffic],
        "latency_ms": latency_ms,
        "recommended": _recommendation(recommended(traffic, latency_ms), chunk_ms),
        "run": run_dict(measured.run) | {"sensors": measured.readings.to_dict()},
        "baselines": [_traffic_row(fed) for fed in (ours, *measured.baselines)] if measured.baselines else [],
        "predictions": _predictions(step_work(step, chunk_ms, resident), machine, model.threads, model.backend),
        "missing": list(dict.fromkeys(missing)),
    }


def graph_dict(profile: GraphProfile, machine: Machine) -> dict[str, Any]:
    """A graph: the whole step, the caches that hold its weights, and its operators, the longest first."""
    held = holding_cache(working_set_bytes(profile), machine)
    operators = sorted(profile.operators, key=lambda operator: -operator.time_us)
    return {
        "time_us": round(profile.step_us, 2),
        "operators_us": round(profile.operators_us, 2),
        "operators_share": round(profile.operators_us / profile.step_us, 4),
        "profiled_us": None if profile.profiled_us is None else round(profile.profiled_us, 2),
        "weight_bytes": profile.weight_bytes,
        "read_weight_bytes": profile.read_weight_bytes,
        "state_read_bytes": profile.state_read_bytes,
        "state_written_bytes": profile.state_written_bytes,
        "activation_bytes": profile.activation_bytes,
        "int8_macs": profile.macs(int8=True),
        "fp32_macs": profile.macs(int8=False),
        **_placed(place_step(profile, machine)),
        "held_by": f"L{held.level}" if held else None,
        "caches": [
            {
                "level": cache.level,
                "size_bytes": cache.size_bytes,
                "weights_fit": profile.weight_bytes <= cache.size_bytes,
                "weights_and_state_fit": working_set_bytes(profile) <= cache.size_bytes,
            }
            for cache in machine.caches
        ],
        "by_type": _by_type(operators),
        "operators": [_operator(operator, profile, machine) for operator in operators],
    }


def _placed(placement: Placement) -> dict[str, Any]:
    return _rounded(
        {
            "intensity": placement.intensity,
            "gb_per_s": placement.gb_per_s,
            "gop_per_s": placement.gop_per_s,
            "memory_floor_us": placement.memory_floor_us,
            "compute_floor_us": placement.compute_floor_us,
            "times_floor": placement.times_floor,
            "roof_share": placement.roof_share,
        }
    ) | {"bound": placement.bound}


def _operator(operator: Operator, profile: GraphProfile, machine: Machine) -> dict[str, Any]:
    work = operator.work
    return {
        "name": operator.name,
        "type": operator.op_type,
        "time_us": round(operator.time_us, 2),
        "weight_bytes": work.weight_bytes,
        "state_bytes": work.state_bytes,
        "activation_bytes": work.activation_bytes,
        "macs": work.macs,
        "precision": "int8" if work.int8 else "fp32",
        **_placed(place_operator(operator, profile, machine)),
    }


def _by_type(operators: Iterable[Operator]) -> list[dict[str, Any]]:
    """Sums over operators of a type, the longest first."""
    sums: dict[str, dict[str, Any]] = {}
    for operator in operators:
        row = sums.setdefault(
            operator.op_type, {"type": operator.op_type, "count": 0, "time_us": 0.0, "moved_bytes": 0, "macs": 0}
        )
        row["count"] += 1
        row["time_us"] += operator.time_us
        row["moved_bytes"] += operator.work.moved_bytes
        row["macs"] += operator.work.macs
    return [_rounded(row) for row in sorted(sums.values(), key=lambda row: -row["time_us"])]


def _memory_dict(model: ModelProfile, machine: Machine) -> dict[str, Any] | None:
    """Of the memory graph, which runs once a summary: what it adds to each second of audio."""
    if model.memory is None or model.memory_every_s is None:
        return None
    found = graph_dict(model.memory, machine)
    del found["operators"]
    per_s = working_set_bytes(model.memory) / model.memory_every_s
    return {"every_s": model.memory_every_s, "dram_bytes_per_s": round(per_s), **found}


def _recommendation(best: ChunkTraffic | None, chunk_ms: int) -> dict[str, Any] | None:
    """The cheapest chunk within the latency budget, and whether it is the one that the graph has."""
    return _rounded(asdict(best)) | {"is_the_graphs": best.chunk_ms == chunk_ms} if best else None


def _traffic_row(fed: Fed) -> dict[str, Any]:
    """What a network asks of memory for each second of audio.

    dram_bytes_per_s: each weight once a step, and the state read and written: what comes from memory where no cache
                      keeps anything from step to step
    read_bytes_per_s: a weight each time an operator reads it
    """
    graph = fed.graph
    steps_per_s = 1000 / (fed.vector_ms * fed.vectors)
    macs = graph.macs(int8=True) + graph.macs(int8=False)
    return _rounded(
        {
            "network": fed.name,
            "vector_ms": fed.vector_ms,
            "vectors": fed.vectors,
            "weight_bytes": graph.weight_bytes,
            "state_bytes": graph.state_bytes,
            "macs": macs,
            "intensity": 2 * macs / working_set_bytes(graph),
            "operators": len(graph.operators),
            "step_us": graph.step_us,
            "ms_per_s": graph.step_us / 1000 * steps_per_s,
            "dram_bytes_per_s": working_set_bytes(graph) * steps_per_s,
            "read_bytes_per_s": (graph.read_weight_bytes + graph.state_bytes) * steps_per_s,
        }
    )


def _predictions(work: Work, machine: Machine, threads: int, backend: str) -> dict[str, Any]:
    """A step on this machine, to be held against the measured one, and on every board that is known."""
    boards = [predict(board, work, min(threads, board.cores), backend) for board in device_profiles()]
    return {"here": predict(machine, work, threads, backend).to_dict(), "boards": [one.to_dict() for one in boards]}


def run_dict(run: StreamRun) -> dict[str, Any]:
    """A stream, ready for JSON."""
    ranks = (50, 95, 99)
    return {
        "real_time": run.real_time,
        "audio_s": round(run.audio_s, 3),
        "cpu_s": round(run.cpu_s, 4),
        "rtf": round(run.rtf, 5),
        "wall_rtf": round(run.wall_rtf, 5),
        "chunks": len(run.chunk_ms),
        "chunk_ms": _rounded(percentiles(run.chunk_ms, ranks)),
        "chunk_times_ms": [round(value, 3) for value in run.chunk_ms],
        "late_chunks": run.late_chunks,
        "first_token_latency_ms": _rounded(percentiles(run.first_token_latency_ms, (50, 95))),
        "endpoint_latency_ms": _rounded(percentiles(run.endpoint_latency_ms, (50, 95))),
        "words": run.words,
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
