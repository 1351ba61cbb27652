"""What a step would take on a machine that is not here, from what the machine can do and what the model asks of it.

    time = (operators - products) x operator_us          the runtime's own time
         + tensors x tensor_us                           handing the state over, in and out
         + products x product_us                         int8 products quantise what they multiply
         + max(weight_bytes / B, 2 MACs / peak)          weights are read, and multiplied meanwhile
         + state_bytes / B + activation_bytes / operator_gb_per_s

B is the machine's bandwidth at the working set of a step, weights and state: what does not fit into a cache comes from
DRAM in every step. The peak is that of products with as few rows as a chunk has: most of them load more than they
multiply. What operators hand to each other stays in a cache. docs/profile.md has the same with its limits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgeasr.devices.profile import DeviceProfile
from edgeasr.errors import ProfileError
from edgeasr.profile.machine import Machine, nearest_below

if TYPE_CHECKING:
    from edgeasr.profile.operators import GraphProfile, Operator


@dataclass(frozen=True)
class Reference:
    """A runtime on a machine with a 7-zip rating (`7z b -mmt1`, of processor time it got).

    The runtime's own time is taken to be proportional to the rating: a guess, good to a factor of two or three.

    operator_us, tensor_us, product_us: as of `machine.Costs`, by `edgeasr profile --refresh`
    fp32_share, int8_share: of the arithmetic that a core's pipes allow, what products with few rows reach
    """

    mips: float
    operator_us: float
    tensor_us: float
    product_us: float
    fp32_share: float
    int8_share: float


REFERENCES = {
    # An AMD EPYC of 2021 without AVX-512, the least of nine and the mean of two runs beside other programs. Products in
    # int8 reach 0.7 of the pipes with hundreds of rows, and 0.4 of that with the four of a chunk.
    "onnxruntime": Reference(2650, operator_us=2.3, tensor_us=0.86, product_us=2.1, fp32_share=0.7, int8_share=0.28),
    # An AMD EPYC with AVX-512, beside other programs, where products with the four rows of a chunk reach 0.65.
    "native": Reference(3840, operator_us=0.18, tensor_us=0.0, product_us=0.22, fp32_share=0.7, int8_share=0.5),
}
MEMORY_SHARE = 0.5  # of the board's memory that a recogniser may fill


@dataclass(frozen=True)
class Work:
    """What one step of a model asks of a machine.

    weight_bytes:         read once a step
    activation_bytes:     read and written by all operators, weights and state apart
    state_bytes:          of the state, read and written
    int8_macs, fp32_macs: multiply-adds
    tensors:              that go in and come out
    operators:            that the runtime runs in a step, after its own fusions
    products:             of these, products in int8
    chunk_ms:             audio of a step
    resident_bytes:       memory of the whole process; 0 if unknown
    """

    weight_bytes: int
    activation_bytes: int
    state_bytes: int
    int8_macs: int
    fp32_macs: int
    tensors: int
    operators: int
    products: int
    chunk_ms: float
    resident_bytes: int = 0


@dataclass(frozen=True)
class Prediction:
    """A step on a machine.

    time_ms:            of a step
    operators_ms, weights_ms, activations_ms: the parts of it: the runtime's own, weights, and all other tensors
    bound:              the largest part: "operators", "memory" or "compute"
    dram_bytes:         of a step
    bandwidth_gb_per_s: of DRAM while a step runs
    demand_gb_per_s:    of DRAM on average, when the stream runs in real time
    real_time_factor:   time of a step / audio of a step
    real_time:          whether the machine keeps up
    fits_memory:        whether the process takes at most half of the memory; None if its size is unknown
    """

    device: str
    threads: int
    time_ms: float
    operators_ms: float
    weights_ms: float
    activations_ms: float
    bound: str
    dram_bytes: int
    bandwidth_gb_per_s: float
    demand_gb_per_s: float
    real_time_factor: float
    real_time: bool
    fits_memory: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


class _Figures(Protocol):
    """What a prediction needs of a machine. Rates in GB/s, GFLOPS and GOPS; times in microseconds"""

    name: str
    memory_bytes: int
    last_cache_bytes: int
    operator_us: float
    tensor_us: float
    product_us: float
    operator_gb_per_s: float

    def gb_per_s(self, working_set_bytes: float, threads: int, kernel: str) -> float: ...

    def peaks(self, threads: int) -> tuple[float, float]:
        """fp32, and int8 with few rows."""


def step_work(profile: GraphProfile, chunk_ms: float, resident_bytes: int = 0) -> Work:
    """What a profiled graph asks in each step. chunk_ms, resident_bytes: as of Work"""
    return Work(
        weight_bytes=profile.weight_bytes,
        activation_bytes=profile.activation_bytes,
        state_bytes=profile.state_bytes,
        int8_macs=profile.macs(int8=True),
        fp32_macs=profile.macs(int8=False),
        tensors=len({name for operator in profile.operators for name in _handed_over(operator)}),
        operators=len(profile.operators),
        products=sum(operator.work.int8 for operator in profile.operators),
        chunk_ms=chunk_ms,
        resident_bytes=resident_bytes,
    )


def _handed_over(operator: Operator) -> list[str]:
    """Of what an operator reads and writes, the names of the state that the caller gives and takes."""
    tensors = (*operator.inputs, *operator.outputs)
    return [tensor.name for tensor in tensors if tensor.name.startswith(("state.", "next_state."))]


def predict(device: DeviceProfile | Machine, work: Work, threads: int = 1, backend: str = "onnxruntime") -> Prediction:
    """A step of a model on a board by its profile, or on a machine as measured.

    backend: that runs it, "onnxruntime" or "native"
    errors:  ProfileError for no threads, or a backend that was not measured on the machine
    """
    if threads < 1:
        raise ProfileError(f"got {threads} threads, wanted 1 or more")
    known = device.costs if isinstance(device, Machine) else REFERENCES
    if backend not in known:
        raise ProfileError(f"got backend {backend!r}, wanted one whose costs are known: {', '.join(known)}")
    figures = _Measured(device, backend) if isinstance(device, Machine) else _Profiled(device, backend)
    working_set = work.weight_bytes + work.state_bytes
    fp32, int8 = figures.peaks(threads)
    read, moved = (figures.gb_per_s(working_set, threads, kernel) for kernel in ("read", "copy"))
    operators_us = (work.operators - work.products) * figures.operator_us + work.products * figures.product_us
    operators_us += work.tensors * figures.tensor_us
    memory_us = work.weight_bytes / read / 1e3
    compute_us = (2 * work.fp32_macs / fp32 + 2 * work.int8_macs / int8) / 1e3
    activations_us = work.state_bytes / moved / 1e3 + work.activation_bytes / figures.operator_gb_per_s / 1e3
    total_us = operators_us + max(memory_us, compute_us) + activations_us
    from_dram = working_set if working_set > figures.last_cache_bytes else 0
    return Prediction(
        device=figures.name,
        threads=threads,
        time_ms=total_us / 1e3,
        operators_ms=operators_us / 1e3,
        weights_ms=max(memory_us, compute_us) / 1e3,
        activations_ms=activations_us / 1e3,
        bound=_bound(operators_us, memory_us + activations_us, compute_us),
        dram_bytes=from_dram,
        bandwidth_gb_per_s=from_dram / total_us / 1e3,
        demand_gb_per_s=from_dram / work.chunk_ms / 1e6,
        real_time_factor=total_us / 1e3 / work.chunk_ms,
        real_time=total_us / 1e3 < work.chunk_ms,
        fits_memory=work.resident_bytes <= MEMORY_SHARE * figures.memory_bytes if work.resident_bytes else None,
    )


def _bound(operators_us: float, memory_us: float, compute_us: float) -> str:
    parts = {"operators": operators_us, "memory": memory_us, "compute": compute_us}
    return max(parts, key=lambda name: parts[name])


class _Measured:
    """A machine as measured."""

    def __init__(self, machine: Machine, backend: str) -> None:
        self._machine, costs = machine, machine.costs[backend]
        self.name, self.memory_bytes = machine.name, machine.memory_bytes
        self.last_cache_bytes = max((cache.size_bytes for cache in machine.caches), default=0)
        self.operator_us, self.tensor_us, self.product_us = costs.operator_us, costs.tensor_us, costs.product_us
        self.operator_gb_per_s, self._few_rows_gops = costs.operator_gb_per_s, costs.few_rows_gops

    def gb_per_s(self, working_set_bytes: float, threads: int, kernel: str) -> float:
        return self._machine.gb_per_s(working_set_bytes, threads, kernel)

    def peaks(self, threads: int) -> tuple[float, float]:
        fp32, int8 = self._machine.fp32_gflops, self._machine.int8_gops
        faster = int8[nearest_below(threads, int8)] / int8[min(int8)]
        return fp32[nearest_below(threads, fp32)], self._few_rows_gops * faster


class _Profiled:
    """A board by its profile. Bandwidth is that of one thread: on these boards one nearly fills the bus."""

    def __init__(self, profile: DeviceProfile, backend: str) -> None:
        self._profile, self._reference = profile, REFERENCES[backend]
        self.name, self.memory_bytes = profile.name, min(profile.memory_bytes)
        self.last_cache_bytes = max((cache.size_bytes for cache in profile.caches), default=0)
        reference = self._reference
        slower = reference.mips / profile.arithmetic.single_thread_mips
        self.operator_us, self.tensor_us = reference.operator_us * slower, reference.tensor_us * slower
        self.product_us = reference.product_us * slower
        self.operator_gb_per_s = profile.gb_per_s(profile.caches[-1].size_bytes)

    def gb_per_s(self, working_set_bytes: float, threads: int, kernel: str) -> float:
        del threads, kernel
        return self._profile.gb_per_s(working_set_bytes)

    def peaks(self, threads: int) -> tuple[float, float]:
        arithmetic, cores = self._profile.arithmetic, min(threads, self._profile.cores)
        gcycles = cores * self._profile.clock_hz / 1e9
        fp32 = gcycles * arithmetic.fp32_flops_per_cycle * self._reference.fp32_share
        return fp32, gcycles * arithmetic.int8_ops_per_cycle * self._reference.int8_share
