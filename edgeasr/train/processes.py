"""The processes of a run: each one's place among them, and a parent that hears, stops and buries them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from edgeasr.errors import ConfigError, EdgeasrError

# Keep freed memory: giving it back to the kernel after each step costs page faults. glibc reads these
# when a process starts.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}
_POLL_S = 0.1
# Counts and stops are summed on the CPU also where gradients are on GPUs.
_ENGINES = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
# The others wait while the first process decodes a corpus, longer than the half hour that torch would.
_PATIENCE = timedelta(hours=24)
_LAST_WORDS_S = 10.0


@dataclass(frozen=True)
class Place:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    on_machine: int = 0  # which of those on its machine

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """Where this process computes: of several GPUs, one of its own. raises: ConfigError without such a GPU"""
        if kind == "cpu":
            return torch.device("cpu")
        found = torch.cuda.device_count()
        if self.on_machine >= found:
            raise ConfigError(
                f"got {found} GPUs that torch can use, wanted one for process {self.on_machine + 1} of this machine: "
                'start fewer processes, install a torch with CUDA, or set run.device = "cpu"'
            )
        device = torch.device("cuda", self.on_machine)
        torch.cuda.set_device(device)
        return device

    def sum(self, tensor: Tensor) -> None:
        """Make `tensor` the sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@dataclass(frozen=True)
class Progress:
    """How far a part of the run is."""

    what: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    step: int
    finished: bool  # False: it was asked to stop, and can go on from `step`
    best: float  # lowest word error rate on the first dev manifest; infinite without one


def unheard(_: object) -> None:
    """What is said to nobody."""


def never() -> bool:
    """What nobody asks for."""
    return False


@dataclass(frozen=True)
class Observer:
    """Who hears of a run and may stop it.

    report: gets lines of text; watch: gets Progress; stop: is asked after every step
    """

    report: Callable[[str], None] = unheard
    watch: Callable[[Progress], None] = unheard
    stop: Callable[[], bool] = never


Run = Callable[[Place, Observer], Outcome]


def run_here(run: Run, observer: Observer, device: str = "cpu") -> Outcome:
    """Run as one of the processes that torchrun started."""
    place = Place(*(int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    dist.init_process_group(_ENGINES[device], timeout=_PATIENCE)
    try:
        return run(place, observer if place.leads else Observer(stop=observer.stop))
    finally:
        dist.destroy_process_group()


def run_in_processes(run: Run, world: int, observer: Observer, device: str = "cpu") -> Outcome:
    """Run in `world` new processes on this machine; the observer is called in this one.

    raises: what `run` raises of EdgeasrError or OSError; KeyboardInterrupt when it was stopped before its first
        step; RuntimeError when a process dies
    """
    context = multiprocessing.get_context("spawn")
    messages: SimpleQueue[Any] = context.SimpleQueue()
    stopping = context.Event()
    with tempfile.TemporaryDirectory() as folder:
        shared = (run, world, device, Path(folder, "rendezvous").as_uri(), messages, stopping)
        crew = [context.Process(target=_member, args=(rank, *shared), daemon=True) for rank in range(world)]
        try:
            with _environment(MALLOC_SETTINGS):
                for process in crew:
                    process.start()
            return _supervise(crew, messages, stopping, observer)
        finally:
            _bury(crew)


def _supervise(crew: list[SpawnProcess], messages: SimpleQueue[Any], stopping: Event, observer: Observer) -> Outcome:
    """Hear the processes until all have ended or one has failed."""
    outcome = None
    running = {process.sentinel: process for process in crew}
    while running:
        ended = [running.pop(sentinel) for sentinel in wait(list(running), _POLL_S) if isinstance(sentinel, int)]
        if observer.stop():
            stopping.set()
        while not messages.empty():
            message = messages.get()
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, Outcome):
                outcome = message
            elif isinstance(message, Progress):
                observer.watch(message)
            else:
                observer.report(message)
        for process in ended:
            process.join()
            if process.exitcode:
                if stopping.is_set():
                    raise KeyboardInterrupt
                raise RuntimeError(f"training process {process.pid} ended with exit code {process.exitcode}")
    assert outcome is not None
    return outcome


def _bury(crew: list[SpawnProcess]) -> None:
    """End what still runs: it may wait for a process that is gone."""
    alive = [process for process in crew if process.is_alive()]
    for process in alive:
        process.terminate()
    for process in alive:
        process.join(_LAST_WORDS_S)
        if process.is_alive():
            process.kill()


def _member(  # noqa: PLR0913 - what a process is started with
    rank: int, run: Run, world: int, device: str, rendezvous: str, messages: SimpleQueue[Any], stopping: Event
) -> None:
    # Ctrl-C reaches every process of a terminal; the parent passes it on as a request that all hear in one step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # About sizes of 1, whose strides mean nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    dist.init_process_group(_ENGINES[device], init_method=rendezvous, rank=rank, world_size=world, timeout=_PATIENCE)
    place = Place(rank, world, rank)
    said = messages.put if place.leads else unheard
    try:
        outcome = run(place, Observer(said, said, lambda: _asked_to_stop(stopping)))
        if place.leads:
            messages.put(outcome)
    except (EdgeasrError, OSError, KeyboardInterrupt) as error:
        messages.put(error)
        sys.exit(EdgeasrError.exit_code)
    finally:
        dist.destroy_process_group()
    # Python would shut down now; a thread of torch's that is not through by then ends the process with SIGABRT.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _asked_to_stop(stopping: Event) -> bool:
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        sys.exit("edgeasr: the process that started the training is gone")
    return stopping.is_set()


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """The environment of processes started inside; what is set there already stays."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
