"""Compilers and an emulator that tests of the firmware need: what is missing, and the Debian packages that bring it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

PACKAGES = {
    "make": "make",
    "gcc": "gcc libc6-dev",
    "clang": "clang libclang-rt-dev",
    "gcovr": "gcovr",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    "qemu-system-arm": "qemu-system-arm",
}
# What compiles only where the library that a program needs is there too.
_WITH_HEADER = "#include <string.h>\n"
_WITH_FUZZER = "int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return data == 0 && size == 1; }\n"
_PROBES = {
    "gcc": (("-c",), _WITH_HEADER),
    "clang": (("-fsanitize=fuzzer,address,undefined",), _WITH_FUZZER),
    "arm-none-eabi-gcc": (("-c",), _WITH_HEADER),
    "riscv64-unknown-elf-gcc": (("-c", "-march=rv32imac", "-mabi=ilp32", "--specs=picolibc.specs"), _WITH_HEADER),
}


@cache
def is_there(program: str) -> bool:
    """Whether a program and what it needs are installed."""
    if shutil.which(program) is None:
        return False
    if program not in _PROBES:
        return True
    flags, source = _PROBES[program]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, *flags, "-x", "c", "-", "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0


def missing(*programs: str) -> str | None:
    """What has to be installed for these, if anything."""
    packages = [PACKAGES[program] for program in programs if not is_there(program)]
    return f"not installed: apt-get install {' '.join(packages)}" if packages else None
