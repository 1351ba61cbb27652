import json
import os
import shutil
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.errors import ProfileError
from edgeasr.profile import bandwidth as bandwidth_module
from edgeasr.profile import bandwidth_check
from edgeasr.profile.bandwidth import (
    LARGEST_BYTES,
    NumpyKernels,
    Sweep,
    best_kernels,
    full_sweep,
    measure_bandwidth,
    quick_sweep,
    thread_counts,
)
from edgeasr.profile.native import KERNELS, native_kernels

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc libc6-dev"
)


class ClockedKernels:
    """Moves a working set at a rate that depends on its size; the first sample of each point is disturbed."""

    source, names, smallest_bytes = "clocked", KERNELS, 0

    def __init__(self, gb_per_s):
        self.gb_per_s = gb_per_s
        self.calls = []

    def run(self, kernel, arrays, threads, passes):
        moved = len(arrays[0]) * 8 * {"read": 1, "copy": 2, "scale": 2, "add": 3, "triad": 3}[kernel]
        disturbed = 1 if any(call[:3] == (kernel, len(arrays[0]), threads) for call in self.calls) else 5
        self.calls.append((kernel, len(arrays[0]), threads, passes))
        return disturbed * moved * passes / (self.gb_per_s(moved) * threads * 1e9)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return native_kernels(tmp_path_factory.mktemp("kernels"))


def arrays(n=1000):
    rng = np.random.default_rng(0)
    return rng.random(n), rng.random(n), rng.random(n)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["c", "numpy"])
def test_kernels_compute_what_stream_computes(kind, threads, request):
    if kind == "c" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler: apt-get install gcc libc6-dev")
    kernels = request.getfixturevalue("library") if kind == "c" else NumpyKernels()
    a, b, c = arrays()
    kept = a.copy(), b.copy(), c.copy()
    for kernel in kernels.names:
        a[:], b[:], c[:] = kept
        assert kernels.run(kernel, (a, b, c), threads, 2) >= 0
        wanted = list(kept)
        if kernel == "copy":
            wanted[2] = kept[0]
        elif kernel == "scale":
            wanted[1] = 3 * kept[2]
        elif kernel == "add":
            wanted[2] = kept[0] + kept[1]
        elif kernel == "triad":
            wanted[0] = kept[1] + 3 * kept[2]
        np.testing.assert_allclose((a, b, c), wanted, rtol=1e-15)


@needs_compiler
def test_the_library_refuses_what_it_cannot_run(library):
    with pytest.raises(ProfileError, match="bad arguments"):
        library.run("copy", arrays(), 0, 1)
    with pytest.raises(ProfileError, match="got 257 threads for copy"):
        library.run("copy", arrays(), 257, 1)


def test_the_best_round_counts_and_bytes_are_streams():
    kernels = ClockedKernels(lambda moved: 40.0)
    points = measure_bandwidth(kernels, Sweep((3 * 2**14,), (1, 2), rounds=3))
    assert [(point.kernel, point.threads) for point in points] == [(k, t) for t in (1, 2) for k in KERNELS]
    assert [point.gb_per_s for point in points] == pytest.approx([40.0] * 5 + [80.0] * 5)


def test_samples_last_as_long_as_asked():
    kernels = ClockedKernels(lambda moved: 1.0)
    measure_bandwidth(kernels, Sweep((2**14,), (1,), ("copy",), rounds=4, sample_s=0.01))
    passes = [call[3] for call in kernels.calls]
    assert passes[0] == 1
    assert passes[-1] == pytest.approx(0.01 * 1e9 / 2**14, rel=0.01)


def test_all_rounds_go_over_all_points_so_that_a_disturbance_spoils_none():
    kernels = ClockedKernels(lambda moved: 10.0)
    measure_bandwidth(kernels, Sweep((2**14, 2**15), (1,), ("read", "copy"), rounds=2))
    points = [call[:2] for call in kernels.calls]
    assert points[:4] == points[4:]
    assert len(set(points)) == 4


def test_each_level_of_cache_shows_as_a_step():
    kernels = ClockedKernels(lambda moved: 100.0 if moved <= 2**16 else 20.0)
    points = measure_bandwidth(kernels, Sweep((2**15, 2**16, 2**17, 2**18), (1,), ("read",), rounds=2))
    assert [round(point.gb_per_s) for point in points] == [100, 100, 20, 20]


def test_progress_runs_from_nothing_to_all():
    shares, whats = [], []
    measure_bandwidth(
        ClockedKernels(lambda moved: 10.0),
        Sweep((2**14, 2**21), (1, 2), ("copy",), rounds=2),
        lambda what, share: (whats.append(what), shares.append(share)),
    )
    assert shares == pytest.approx([i / 8 for i in range(8)])
    assert whats[0] == "copy, 16 KB, 1 thread"
    assert whats[3] == "copy, 2 MB, 2 threads"


def test_a_sweep_fits_into_the_free_memory():
    assert full_sweep(2).sizes_bytes == tuple(2**power for power in range(14, 29))
    assert max(full_sweep(2, free_bytes=100 * 2**20).sizes_bytes) == 16 * 2**20
    quick = quick_sweep(4, last_cache_bytes=2**20)
    assert (min(quick.sizes_bytes), max(quick.sizes_bytes), quick.threads) == (2**14, 2**24, (1, 4))
    assert max(quick_sweep(4, last_cache_bytes=32 * 2**20).sizes_bytes) == 64 * 2**20
    # Where nothing says how large the caches are, it goes as far as a full sweep.
    assert 4 * max(quick_sweep(4, last_cache_bytes=0).sizes_bytes) > LARGEST_BYTES
    assert 2 * max(quick_sweep(1, 2**20, free_bytes=2**22).sizes_bytes) <= 2**21


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, (1,)), (4, (1, 2, 3, 4)), (6, (1, 2, 3, 4, 6)), (16, (1, 2, 3, 4, 8, 16))]
)
def test_threads_from_one_to_all(cores, counts):
    assert thread_counts(cores) == counts


def test_without_a_compiler_numpy_moves_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    kernels, missing = best_kernels(tmp_path / "cache")
    assert kernels.source == "numpy"
    assert len(missing) == 1
    assert "triad, and bandwidth below 256 KB" in missing[0]
    assert "apt-get install gcc" in missing[0]
    points = measure_bandwidth(kernels, Sweep((2**14, 2**18), (1, 2), rounds=1, sample_s=1e-4))
    assert {point.working_set_bytes for point in points} == {2**18}
    assert {point.kernel for point in points} == {"read", "copy", "scale", "add"}
    assert all(0 < point.gb_per_s < 1e5 for point in points)
    with pytest.raises(ProfileError, match="too little memory is free"):
        measure_bandwidth(kernels, Sweep((2**14,), (1,)))


def test_a_compiler_that_cannot_compile_is_no_failure(tmp_path, monkeypatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no headers' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    kernels, missing = best_kernels(tmp_path / "cache")
    assert kernels.source == "numpy"
    assert "cannot compile bandwidth.c (no headers)" in missing[0]


@needs_compiler
def test_the_library_is_compiled_once(tmp_path, monkeypatch):
    first = native_kernels(tmp_path)
    made = list(tmp_path.iterdir())
    assert [path.suffix for path in made] == [".so"]
    monkeypatch.setattr("edgeasr.native_code._failure", lambda *_: pytest.fail("compiled again"))
    assert native_kernels(tmp_path).names == first.names
    assert list(tmp_path.iterdir()) == made


@needs_compiler
def test_a_broken_library_is_compiled_again(tmp_path):
    native_kernels(tmp_path / "whole")
    kept = tmp_path / "broken" / next((tmp_path / "whole").iterdir()).name
    kept.parent.mkdir()
    kept.write_bytes(b"half")
    a, b, c = arrays()
    native_kernels(kept.parent).run("copy", (a, b, c), 1, 1)
    np.testing.assert_array_equal(c, a)
    assert kept.stat().st_size > 1000


@needs_compiler
def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("")
    kernels = native_kernels(tmp_path / "file" / "below")
    assert kernels.source == "c"


def test_memory_that_cannot_be_had_is_an_error(monkeypatch):
    def refuse(*_):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(bandwidth_module.mmap, "mmap", refuse)
    with pytest.raises(ProfileError, match=r"got no 21\.3125 KB of memory to move"):
        measure_bandwidth(ClockedKernels(lambda moved: 1.0), Sweep((2**14,), (1,)))


# Beside mbw: a program that says what a script says.


@pytest.fixture
def fake_mbw(tmp_path, monkeypatch):
    def install(text):
        program = tmp_path / "mbw"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


MBW_SAYS = """0	Method: MEMCPY	Elapsed: 0.02000	MiB: 1.00000	Copy: 50.000 MiB/s
1	Method: MEMCPY	Elapsed: 0.01000	MiB: 1.00000	Copy: 100.000 MiB/s
AVG	Method: MEMCPY	Elapsed: 0.00500	MiB: 1.00000	Copy: 75.000 MiB/s"""


def test_mbws_best_copy_counts_as_read_and_written(fake_mbw, monkeypatch, tmp_path):
    fake_mbw(MBW_SAYS)
    monkeypatch.setattr(bandwidth_check, "best_kernels", lambda folder: (ClockedKernels(lambda moved: 0.2), ("this",)))
    agreements, missing = bandwidth_check.compare_with_mbw(tmp_path, array_mb=1, rounds=2)
    assert missing == ("this",)
    assert [one.name for one in agreements] == ["clocked", "numpy"]
    assert [one.mbw_gb_per_s for one in agreements] == pytest.approx([2 * 2**20 / 0.01 / 1e9] * 2)
    assert agreements[0].ratio == pytest.approx(0.2 / 0.2097152, rel=1e-3)
    assert agreements[0].working_set_bytes == 2**21


def test_the_command_prints_both(fake_mbw):
    fake_mbw(MBW_SAYS)
    code, out, _ = edgeasr("bench", "bandwidth", "--size", "1", "--rounds", "1", "--json")
    found = json.loads(out)
    assert (code, found["kernel"], found["threads"]) == (0, "copy", 1)
    ours = found["agreements"][0]
    assert ours["ratio"] == pytest.approx(ours["gb_per_s"] / ours["mbw_gb_per_s"], abs=1e-3)
    code, out, _ = edgeasr("bench", "bandwidth", "--size", "1", "--rounds", "1")
    assert (code, out.splitlines()[-1].split()) == (0, ["mbw,", "memcpy", "0.21"])


def test_mbw_that_prints_nothing_is_an_error(fake_mbw):
    fake_mbw("mbw: no memory")
    code, out, err = edgeasr("bench", "bandwidth", "--size", "1", "--rounds", "1")
    assert (code, out) == (2, "")
    assert "printed no times" in err


def test_without_mbw_the_command_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = edgeasr("bench", "bandwidth")
    assert (code, out) == (2, "")
    assert "apt-get install mbw" in err
