"""Instructions that 20 ms of sound take: python instructions.py HOST_PROGRAM CORTEX_M0PLUS_ELF CORTEX_M4F_ELF"""

from __future__ import annotations

import re
import subprocess
import sys

FEW, MANY = 10, 60
# SysTick of QEMU's mps2-an386 counts at 25 MHz, and with -icount shift=0 an instruction takes 1 ns.
INSTRUCTIONS_A_TICK = 40
QEMU = ("qemu-system-arm", "-machine", "mps2-an386", "-nographic", "-semihosting", "-icount", "shift=0", "-kernel")


def collected(program: str, name: str, calls: int) -> int:
    """Instructions of a whole run under callgrind."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, name, str(calls)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"Collected : (\d+)", report)
    if found is None:
        raise SystemExit(f"callgrind did not say what it collected: {report}")
    return int(found[1])


def on_this_machine(program: str) -> dict[str, float]:
    """By call, from two runs of different length."""
    names = subprocess.run([program, "list"], capture_output=True, text=True, check=True).stdout.split()
    return {name: (collected(program, name, MANY) - collected(program, name, FEW)) / (MANY - FEW) for name in names}


def in_qemu(program: str) -> dict[str, float]:
    """By call, from the ticks that the program prints."""
    done = subprocess.run(
        [*QEMU, program], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=120
    )
    # QEMU prints on either, as it was built.
    rows = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    return {name: int(ticks) * INSTRUCTIONS_A_TICK / int(calls) for name, ticks, calls in rows}


def main() -> None:
    """Print a row of Markdown for each call."""
    host, *others = sys.argv[1:]
    columns = [on_this_machine(host), *map(in_qemu, others)]
    sys.stdout.write("| 20 ms of sound | x86-64 | Cortex-M0+ | Cortex-M4F |\n| --- | ---: | ---: | ---: |\n")
    for name in columns[0]:
        cells = " | ".join(f"{column[name]:,.0f}" for column in columns)
        sys.stdout.write(f"| {name} | {cells} |\n")


if __name__ == "__main__":
    main()
