"""`kernels.c` on emulated Arm cores: bit for bit what it computes here, in vectors of the same width."""

import platform
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.backends.native.graph import NativeGraph
from edgeasr.backends.native.kernels import _FLAGS, NativeLibrary
from edgeasr.backends.native.program import Layout
from edgeasr.backends.native.session import NativeSession
from edgeasr.backends.preparation import prepared_graph
from edgeasr.bundle import Bundle, default_bundle
from edgeasr.features import log_mel
from edgeasr.model import AcousticModel
from edgeasr.onnx_reader import read_onnx
from edgeasr.recording import DEMO_RECORDING, read_recording

needs_compiler, linear = (
    run_path(str(Path(__file__).with_name("native_graphs.py")))["needs_compiler"],
    run_path(str(Path(__file__).with_name("test_native_products.py")))["linear"],
)
COMPILER = shutil.which("aarch64-linux-gnu-gcc")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
# A53 and A72 have no products of four numbers at once (SDOT), A76 has.
CORES = {
    "cortex-a53": ("-march=armv8-a",),
    "cortex-a72": ("-mcpu=cortex-a72",),
    "cortex-a76": ("-march=armv8.2-a+dotprod",),
    "portable": ("-march=armv8-a", "-DEDGEASR_PORTABLE"),
}
# Products and sums that are rounded once differ in the last bit from those that are rounded twice.
APART = "-ffp-contract=off"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
CHUNKS, EACH = 120, 10

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(
        COMPILER is None or QEMU is None,
        reason="no compiler for Arm or no emulator: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross "
        "qemu-user-static",
    ),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine, whose vectors can be narrowed"),
]


@pytest.fixture(scope="module")
def here():
    """The library of this machine in vectors as Arm has them."""
    library = NativeLibrary(("-mno-avx", APART))
    assert library.layout == Layout(4, 12, True)
    return library


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What builds the runner of programs for a core, once."""
    folder, done = tmp_path_factory.mktemp("arm"), {}

    def build(core, *flags):
        if (core, flags) not in done:
            program = folder / f"{core}{len(done)}"
            kernels = files("edgeasr.backends.native").joinpath("kernels.c")
            sources = [str(kernels), str(Path(__file__).with_name("native_program.c"))]
            command = [COMPILER, "-std=gnu11", "-O3", "-static", *_FLAGS, *WARNINGS, *CORES[core], *flags, *sources]
            compiled = subprocess.run([*command, "-o", program, "-lm"], capture_output=True, text=True, check=False)
            assert (compiled.returncode, compiled.stderr) == (0, "")
            done[core, flags] = program
        return done[core, flags]

    return build


def run_on(core, program, session, feeds, folder):
    """Outputs by name of each run, as the emulated core gives them; as `session.run` reads and cuts them."""
    plan = session.plan
    specs = [session.inputs[name] for name in session.inputs]
    most = {size: limit for found in session.varying.values() for _, size, limit in found}
    limits = [most[i] for i in range(len(plan.varying))]
    rooms = [bytes_of(spec, dict(zip(plan.varying, limits, strict=True))) for spec in specs]
    given = [bytes_of(spec, {}) for spec in plan.outputs.values()]
    with (folder / "program").open("wb") as file:
        write_array(file, plan.words)
        write_array(file, plan.constants)
        file.write(np.int64(plan.scratch_bytes).tobytes())
        write_array(file, np.array(rooms, np.int64))
        write_array(file, np.array(given, np.int64))
        file.write(np.int64(len(feeds)).tobytes())
        for feed in feeds:
            write_array(file, np.array([size_in(session, feed, i) for i in range(len(plan.varying))], np.int64))
            for name, spec in session.inputs.items():
                write_array(file, np.frombuffer(np.asarray(feed[name], spec.dtype, order="C").tobytes(), np.uint8))
    emulated = "max" if core == "portable" else core
    command = [QEMU, "-cpu", emulated, program, folder / "program", folder / "given"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    content = np.fromfile(folder / "given", np.uint8).reshape(len(feeds), sum(given))
    ends = np.cumsum(given)[:-1]
    return [
        {
            name: part.view(spec.dtype).reshape(spec.shape)
            for (name, spec), part in zip(plan.outputs.items(), np.split(row, ends), strict=True)
        }
        for row in content
    ]


def write_array(file, array):
    file.write(np.int64(len(array)).tobytes() + array.tobytes())


def bytes_of(spec, limits):
    return int(np.prod([limits.get(size, size) for size in spec.shape], dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def size_in(session, feed, number):
    """Of those that vary."""
    return next(
        feed[name].shape[axis] for name, found in session.varying.items() for axis, which, _ in found if which == number
    )


@pytest.fixture(scope="module")
def speech(here):
    """Sessions of the shipped graphs by name, and what each reads while the bundled clip is heard."""
    bundle = Bundle.load(default_bundle())
    artefact = bundle.artefact("onnx-int8")
    graphs = {part: NativeGraph(artefact[part], library=here) for part in ("step", "memory")}
    model = AcousticModel(bundle, backend="native")
    model._step, model._memory = graphs["step"], graphs["memory"]
    sessions = {part: graph.session for part, graph in graphs.items()}
    sessions["preparation"] = NativeSession(prepared_graph(read_onnx(artefact["step"]).metadata), library=here)
    feeds = {part: [] for part in sessions}
    size, state = bundle.config.encoder.chunk_features, model.init_state()
    features = log_mel(read_recording(DEMO_RECORDING, 16_000), bundle.config.features)
    for i, chunk in enumerate(np.resize(features, (CHUNKS * size, features.shape[1])).reshape(CHUNKS, 1, size, -1)):
        read = {"features": chunk, **state}
        outputs = graphs["step"].run(read)
        if i % EACH == 0:
            feeds["step"].append(graphs["step"].read_from(read))
        if outputs["summary.number"][0, 0] >= 0:
            feeds["memory"].append({name: {**state, **outputs}[name] for name in graphs["memory"].inputs})
            feeds["preparation"].append({name: state[name] for name in sessions["preparation"].inputs})
        _, state = model.step(chunk[0], state)
    assert [len(found) for found in feeds.values()] == [CHUNKS // EACH, 4, 4]
    return {part: (sessions[part], feeds[part]) for part in sessions}


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("part", ["step", "memory", "preparation"])
def test_graphs_give_the_same_bits(speech, built, tmp_path, core, part):
    """But for logarithms, cosines and the like, which are the C library's."""
    session, feeds = speech[part]
    for found, feed in zip(run_on(core, built(core, APART), session, feeds, tmp_path), feeds, strict=True):
        wanted = dict(zip(session.outputs, session.run(None, feed), strict=True))
        for name, array in wanted.items():
            cut = tuple(slice(size) for size in array.shape)
            np.testing.assert_array_equal(found[name][cut], array, err_msg=name)


@pytest.mark.parametrize("core", CORES)
def test_with_fused_rounding_a_step_is_nearly_the_same(speech, built, tmp_path, core):
    """As boards compile it. Now and then an integer becomes the next, as against ONNX Runtime."""
    session, feeds = speech["step"]
    differences = []
    for found, feed in zip(run_on(core, built(core), session, feeds, tmp_path), feeds, strict=True):
        wanted = dict(zip(session.outputs, session.run(None, feed), strict=True))
        differences.append(np.abs(found["log_probs"] - wanted["log_probs"]).max())
    assert np.median(differences) < 1e-4
    assert max(differences) < 0.5


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("rows", range(1, 10))
def test_products_in_int8_are_exact(here, built, tmp_path, core, rows):
    """Numbers from 0 to 255 are their own integers; weights have all of their 8 bits."""
    pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")
    graphs = run_path(str(Path(__file__).with_name("native_graphs.py")))
    rng = np.random.default_rng(rows)
    x = rng.integers(0, 256, (rows, 131)).astype(np.float32)
    x[0, :2] = 0, 255
    weights = rng.integers(-127, 128, (131, 67)).astype(np.int8)
    constants = {"w": weights, "s": np.ones(67, np.float32)}
    wanted = (x.astype(np.int64) @ weights.astype(np.int64)).astype(np.float32)
    session = NativeSession(graphs["model"](linear(), {"x": x}, {"y": wanted}, constants), library=here)
    found = run_on(core, built(core), session, [{"x": x}], tmp_path)[0]["y"]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted)
