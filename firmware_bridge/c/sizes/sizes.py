"""Flash and RAM of the library by module and target, as tables in Markdown: python sizes.py BUILD"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TARGETS = {
    "m0plus": ("Cortex-M0+", "arm-none-eabi-"),
    "m4f": ("Cortex-M4F", "arm-none-eabi-"),
    "m33": ("Cortex-M33", "arm-none-eabi-"),
    "rv32": ("RV32IMAC", "riscv64-unknown-elf-"),
}


def flash(folder: Path, tools: str) -> dict[str, int]:
    """Bytes of code and constants by module; none may have variables of its own."""
    sizes = {}
    for path in sorted(folder.glob("edgeasr_*.o")):
        listing = subprocess.run([f"{tools}size", path], capture_output=True, text=True, check=True).stdout
        text, data, bss = map(int, listing.splitlines()[1].split()[:3])
        if data or bss:
            raise SystemExit(f"{path.name} has {data + bss} bytes of static RAM: the caller shall own all of it")
        sizes[path.stem.removeprefix("edgeasr_")] = text
    return {**sizes, "all": sum(sizes.values())}


def states(folder: Path, tools: str) -> dict[str, int]:
    """Bytes of each state and buffer in states.c."""
    listing = subprocess.run([f"{tools}nm", "-S", folder / "states.o"], capture_output=True, text=True, check=True)
    found = re.findall(r"^\w+ (\w+) \w (state|buffer)_(\w+)$", listing.stdout, re.MULTILINE)
    named = {f"{name}, its buffer" if kind == "buffer" else name: int(size, 16) for size, kind, name in found}
    return dict(sorted(named.items()))


def stack(folder: Path) -> dict[str, int]:
    """The deepest frame of a function by module, in bytes; calls between functions add up."""
    deepest = {}
    for path in sorted(folder.glob("edgeasr_*.su")):
        sizes = [int(line.split("\t")[1]) for line in path.read_text().splitlines()]
        if sizes:
            deepest[path.stem.removeprefix("edgeasr_")] = max(sizes)
    return deepest


def table(title: str, columns: list[dict[str, int]]) -> str:
    """Rows by name, a column a target."""
    lines = [f"| {title} | {' | '.join(name for name, _ in TARGETS.values())} |", f"| --- {'| ---: ' * len(TARGETS)}|"]
    lines += [f"| {row} | {' | '.join(f'{column[row]:,}' for column in columns)} |" for row in columns[0]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables of the builds below the folder that the command line names."""
    build = Path(sys.argv[1])
    folders = [(build / target, tools) for target, (_, tools) in TARGETS.items()]
    tables = (
        table("Flash, bytes", [flash(folder, tools) for folder, tools in folders]),
        table("RAM, bytes", [states(folder, tools) for folder, tools in folders]),
        table("Deepest stack frame, bytes", [stack(folder) for folder, _ in folders]),
    )
    sys.stdout.write("\n".join(tables))


if __name__ == "__main__":
    main()
