"""Boards under emulation: Debian roots of Arm with the wheels that a board installs, in which qemu runs every program.

    python tests/emulated_board.py            makes them in .venv/boards: mmdebstrap extracts packages, pip downloads
                                              wheels; and an environment of this machine with what a 32-bit board runs
    python tests/emulated_board.py NAME...    makes these alone

Programs of a root run by their path, as on a board: qemu is registered for Arm's binaries in a user namespace (Linux
6.7 and newer), so that nothing outside changes. QEMU_CPU names the core. An emulated core gives the results of a board,
not its speed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / ".venv" / "boards"
TFLITE_HERE = FOLDER / "tflite-here"  # an environment of this machine with tflite-runtime, which wants an older numpy
DEBIAN = "http://deb.debian.org/debian"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TOOLS = ("mmdebstrap", "unshare", "chroot", "dpkg")

_SYSTEM = "base-files bash coreutils dash dpkg grep libc-bin libportaudio2 python3 python3-venv sed util-linux"
_MADE = "is-made"  # a file that says what a root was made of


def wanted(*names: str, extra: str = "") -> tuple[str, ...]:
    """Requirements of the project: those of the base install, or of an extra, and of these packages alone if named."""
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return tuple(one for one in listed if not names or one.startswith(names))


@dataclass(frozen=True)
class Board:
    """A root and what emulates it.

    cores:    that can be emulated of it
    packages: of Debian, beside those of every root
    wheels:   what pip downloads, and what these need; with these platform tags
    alone:    what it downloads without what these need, which is among the packages
    magic:    of its binaries: class and machine in the header of an ELF file, for binfmt_misc
    """

    name: str
    suite: str
    architecture: str
    python: str
    qemu: str
    cores: tuple[str, ...]
    magic: tuple[str, str]
    wheels: tuple[str, ...]
    tags: tuple[str, ...]
    packages: str = ""
    alone: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """Where its files lie."""
        return FOLDER / self.name / "root"

    @property
    def wheelhouse(self) -> Path:
        """Where its wheels lie."""
        return FOLDER / self.name / "wheels"


PI_64 = Board(
    "bookworm-arm64",
    "bookworm",
    "arm64",
    "3.11",
    "qemu-aarch64-static",
    ("cortex-a53", "cortex-a72", "cortex-a76"),
    (r"\x02", r"\xb7"),
    wheels=(*wanted(), *wanted(extra="litert"), "setuptools>=77"),
    tags=("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28, 31, 34, 35, 36))),
)
PI_32 = Board(
    "bookworm-armhf",
    "bookworm",
    "armhf",
    "3.11",
    "qemu-arm-static",
    ("cortex-a7",),
    (r"\x01", r"\x28"),
    wheels=(*wanted("packaging", "typer"), "typing-extensions"),  # the latter for soundfile
    tags=("manylinux2014_armv7l", *(f"manylinux_2_{minor}_armv7l" for minor in (17, 31, 34, 35, 36))),
    packages="libsndfile1 libsoxr0 python3-cffi python3-numpy",
    alone=(*wanted("sounddevice", "soundfile"), *wanted("tflite-runtime", extra="tflite")),
)

PI_32_TRIXIE = replace(
    PI_32,
    name="trixie-armhf",
    suite="trixie",
    python="3.13",
    packages=f"{PI_32.packages} python3-onnxruntime",
    alone=wanted("sounddevice", "soundfile"),
)

# Identification registers of the cores, as a kernel shows them.
PARTS = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b", "cortex-a7": "0xc07"}
_DOT_PRODUCT = ("cortex-a76",)

# In the namespace: qemu for Arm's binaries, then what a board's kernel would show, then the program.
_ENTER = r"""
set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' "$REGISTER" > /proc/sys/fs/binfmt_misc/register
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc" 2>/dev/null || mount --rbind /proc "$ROOT/proc"
mount --bind "$KERNEL/cpuinfo" "$ROOT/proc/cpuinfo"
mount --bind "$KERNEL/sys" "$ROOT/sys"
printf '%s\n' "$BINDS" | while IFS='	' read -r from to; do
    [ -z "$from" ] || mount --bind "$from" "$ROOT$to"
done
# Not in place of this shell: the first process of a namespace that qemu wants to end by a signal hangs instead.
status=0
chroot "$ROOT" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 OMP_NUM_THREADS=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 QEMU_CPU="$CORE" "$@" || status=$?
exit $status
"""


@cache
def unusable(board: Board) -> str | None:
    """Why nothing can be run on a board, if so."""
    if not (FOLDER / board.name / _MADE).is_file():
        return f"no root of {board.name}: run `make test-arm`"
    if missing := [tool for tool in (board.qemu, "unshare", "chroot") if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)}"
    done = run(board, board.cores[0], ["true"])
    return None if done.returncode == 0 else f"no emulation in a user namespace: {done.stderr.strip()}"


def run(
    board: Board,
    core: str,
    command: Sequence[str],
    binds: Mapping[Path, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A program of the root on a core. binds: files and folders of this machine, and where they lie there"""
    with tempfile.TemporaryDirectory() as kernel:
        _write_kernel(Path(kernel), core)
        for source, place in (binds or {}).items():
            _make_place(source, board.root / place.lstrip("/"))
        given = {
            "REGISTER": _registration(board),
            "ROOT": str(board.root),
            "KERNEL": kernel,
            "CORE": core,
            "BINDS": "".join(f"{source}\t{place}\n" for source, place in (binds or {}).items()),
        }
        pairs = [f"{name}={value}" for name, value in (environment or {}).items()]
        namespace = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
        return subprocess.run(
            ("nice", "-n", "10", *namespace, "sh", "-c", _ENTER, "sh", *pairs, *command),
            env=os.environ | given,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
            stdin=subprocess.DEVNULL,
        )


def _make_place(source: Path, place: Path) -> None:
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def _registration(board: Board) -> str:
    """As the kernel's binfmt_misc wants it; F opens qemu here, before the root is changed."""
    width, machine = board.magic
    magic = rf"\x7fELF{width}\x01\x01" + r"\x00" * 9 + rf"\x02\x00{machine}\x00"
    mask = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
    return f":board:M::{magic}:{mask}:{shutil.which(board.qemu)}:F"


def _write_kernel(folder: Path, core: str) -> None:
    """/proc/cpuinfo and /sys of a board of four such cores. ONNX Runtime's choice of kernels reads both."""
    dot = " asimddp" if core in _DOT_PRODUCT else ""
    features = f"fp asimd evtstrm crc32 cpuid{dot}" if core != "cortex-a7" else "half thumb fastmult vfp neon vfpv4"
    entry = (
        "processor\t: {}\nBogoMIPS\t: 38.40\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU architecture: {}\n"
        "CPU variant\t: 0x0\nCPU part\t: {}\nCPU revision\t: 4\n\n"
    )
    version = 7 if core == "cortex-a7" else 8
    (folder / "cpuinfo").write_text("".join(entry.format(i, features, version, PARTS[core]) for i in range(4)))
    listed = folder / "sys" / "devices" / "system" / "cpu"
    listed.mkdir(parents=True)
    for name in ("online", "possible", "present"):
        (listed / name).write_text("0-3\n")


def make(board: Board) -> None:
    """The root and the wheels, unless they are there. errors: CalledProcessError"""
    made = FOLDER / board.name / _MADE
    recipe = repr(board) + _SYSTEM
    if made.is_file() and made.read_text() == recipe:
        return
    shutil.rmtree(made.parent, ignore_errors=True)
    made.parent.mkdir(parents=True)
    _extract(board)
    _download(board)
    made.write_text(recipe)


def _extract(board: Board) -> None:
    """Packages are unpacked and not configured: programs need the libraries' cache, two alternatives, certificates."""
    hook = "/usr/share/mmdebstrap/hooks/merged-usr"
    packages = ",".join(f"{_SYSTEM} {board.packages}".split())
    options = ("--variant=extract", "--skip=check/qemu", f"--architectures={board.architecture}", f"--hook-dir={hook}")
    source = f"deb {DEBIAN} {board.suite} main"
    _run("mmdebstrap", "--quiet", *options, f"--include={packages}", board.suite, str(board.root), source)
    for name in ("blas", "lapack"):
        for library in board.root.glob(f"usr/lib/*/{name}/lib{name}.so.3"):
            (library.parents[1] / library.name).symlink_to(f"{name}/{library.name}")
    # Newer pips load certificates, although they ask nobody here.
    if certificates := sorted(board.root.glob("usr/share/ca-certificates/**/*.crt")):
        joined = board.root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
        joined.parent.mkdir(parents=True, exist_ok=True)
        joined.write_bytes(b"".join(path.read_bytes() for path in certificates))
    for name in ("dev", "proc", "sys"):
        (board.root / name).mkdir(exist_ok=True)
    done = run(board, board.cores[0], ["/sbin/ldconfig"])
    if done.returncode:
        sys.exit(f"emulated_board.py: {board.name}: ldconfig does not run: {done.stderr.strip()}")


def _download(board: Board) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--only-binary=:all:")
    target = ("--implementation", "cp", "--python-version", board.python, "--dest", str(board.wheelhouse))
    tags = [argument for tag in board.tags for argument in ("--platform", tag)]
    _run(*pip, *target, *tags, *board.wheels)
    if board.alone:
        _run(*pip, *target, *tags, "--no-deps", *board.alone)


def make_tflite_here() -> None:
    """The environment, unless it is there. errors: CalledProcessError"""
    made = TFLITE_HERE / _MADE
    recipe = repr((wanted(), wanted(extra="tflite"), wanted(extra="evaluate")))
    if made.is_file() and made.read_text() == recipe:
        return
    _run(sys.executable, "-m", "venv", "--clear", str(TFLITE_HERE))
    pip = (str(TFLITE_HERE / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, "--editable", f"{REPOSITORY}[tflite,evaluate]")
    made.write_text(recipe)


def _run(*command: str) -> None:
    sys.stderr.write(f"{shlex.join(command)}\n")
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def main() -> None:
    """Make every root that is missing, or those that are named."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        sys.exit(f"emulated_board.py: not installed: {', '.join(missing)}: apt-get install mmdebstrap util-linux dpkg")
    boards = {board.name: board for board in (PI_64, PI_32, PI_32_TRIXIE)}
    if unknown := sorted(set(sys.argv[1:]) - boards.keys()):
        sys.exit(f"emulated_board.py: got {', '.join(unknown)}, wanted some of {', '.join(boards)}")
    for name in sys.argv[1:] or boards:
        make(boards[name])
    if not sys.argv[1:]:
        make_tflite_here()


if __name__ == "__main__":
    main()
