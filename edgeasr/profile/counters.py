"""The processor's own counters around a call, by perf_event_open(2); many kernels and virtual machines give none.

Counted is what the calling thread does, and threads that it starts meanwhile, in user space.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")

# The number of the system call, by machine.
_CALLS = {"x86_64": 298, "aarch64": 241, "armv7l": 364, "armv6l": 364, "riscv64": 241}
_ATTRIBUTES = struct.Struct("<IIQQQQQIIQ")  # of the first version, which all kernels know
_DISABLED, _INHERITED, _NO_KERNEL, _NO_HYPERVISOR = 1 << 0, 1 << 1, 1 << 5, 1 << 6
_TIMES = 0b11  # enabled and running, in this order behind the value
_READ = struct.Struct("<QQQ")
_ENABLE, _DISABLE = 0x2400, 0x2401
_NOT_THERE = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EINVAL)

_HARDWARE, _CACHE, _RAW = 0, 3, 4
_FIRST_LEVEL, _LAST_LEVEL, _MISS = 0, 2, 1 << 16

EVENTS = {
    "cycles": (_HARDWARE, 0),
    "instructions": (_HARDWARE, 1),
    "first_level_misses": (_CACHE, _FIRST_LEVEL | _MISS),
    "last_level_reads": (_CACHE, _LAST_LEVEL),
    "last_level_misses": (_CACHE, _LAST_LEVEL | _MISS),
}
# Of Arm's architecture, which all its cores have; bus accesses are beats from the core, more than reach the DRAM.
ARM_EVENTS = {
    "l2_refills": (_RAW, 0x17),
    "bus_accesses": (_RAW, 0x19),
}


@dataclass(frozen=True)
class Counted:
    """values: by name of the event; missing: those that could not be counted, and why"""

    values: Mapping[str, int]
    missing: tuple[str, ...]


def count(call: Callable[[], object], machine: str | None = None) -> Counted:
    """Counters around a call. machine: as `uname -m` has it, this one unless given"""
    machine = machine or platform.machine()
    values: dict[str, int] = {}
    with ExitStack() as stack:
        opened, failed = _open_all(machine, stack)
        for descriptor in opened.values():
            _control(descriptor, _ENABLE)
        call()
        for descriptor in opened.values():
            _control(descriptor, _DISABLE)
        for name, descriptor in opened.items():
            value, enabled, running = _READ.unpack(os.read(descriptor, _READ.size))
            if running:
                values[name] = round(value * enabled / running)  # there are more events than counters
            else:
                failed[name] = errno.EBUSY
    return Counted(values, _reasons(failed))


def _open_all(machine: str, stack: ExitStack) -> tuple[dict[str, int], dict[str, int]]:
    """File descriptors, and error numbers of what cannot be opened, by event."""
    events = EVENTS | (ARM_EVENTS if machine.startswith(("aarch64", "arm")) else {})
    opened: dict[str, int] = {}
    failed: dict[str, int] = {}
    for name, (kind, config) in events.items():
        descriptor, error = _open(machine, kind, config)
        if error:
            failed[name] = error
        else:
            stack.callback(os.close, descriptor)
            opened[name] = descriptor
    return opened, failed


def _open(machine: str, kind: int, config: int) -> tuple[int, int]:
    """A file descriptor and 0, or nothing and the error's number."""
    if machine not in _CALLS:
        return -1, errno.ENOSYS
    flags = _DISABLED | _INHERITED | _NO_KERNEL | _NO_HYPERVISOR
    attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, config, 0, 0, _TIMES, flags, 0, 0, 0)
    this_thread, any_processor, no_group = 0, -1, -1
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(
        ctypes.c_long(_CALLS[machine]),
        ctypes.create_string_buffer(attributes, _ATTRIBUTES.size),
        *(ctypes.c_int(value) for value in (this_thread, any_processor, no_group)),
        ctypes.c_ulong(0),
    )
    return descriptor, ctypes.get_errno() if descriptor < 0 else 0


def _control(descriptor: int, request: int) -> None:
    import fcntl

    fcntl.ioctl(descriptor, request, 0)


def _reasons(failed: Mapping[str, int]) -> tuple[str, ...]:
    """A line for each reason, with the events that it is the reason of."""
    by_reason: dict[str, list[str]] = {}
    for name, error in failed.items():
        by_reason.setdefault(_reason(error), []).append(name)
    return tuple(f"counters {', '.join(names)}: {reason}" for reason, names in by_reason.items())


def _reason(error: int) -> str:
    if error in (errno.EACCES, errno.EPERM):
        level = "unknown"
        with suppress(OSError):
            level = _PARANOID.read_text().strip()
        return f"the kernel forbids them (perf_event_paranoid is {level}): sudo sysctl kernel.perf_event_paranoid=2"
    if error in _NOT_THERE:
        return "this processor, or this virtual machine, has none"
    if error == errno.EBUSY:
        return "others use them"
    return os.strerror(error)
