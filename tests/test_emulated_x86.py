"""Processors without VNNI, emulated: they add pairs of products in 16 bits, and int8 is made so that these suffice."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeasr.bundle import Bundle, default_bundle, replace_in_bundle
from edgeasr.features import LogMel
from edgeasr.recording import DEMO_RECORDING, read_recording

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
CHUNKS = 25  # 4 s of speech
PROGRAM = """
import sys
import numpy as np
from edgeasr.bundle import Bundle
from edgeasr.model import AcousticModel

bundle, features, output = sys.argv[1:]
model = AcousticModel(Bundle.load(bundle), backend="onnxruntime")  # C of our own is compiled for the processor beneath
state, heard = model.init_state(), []
for chunk in np.load(features):
    emissions, state = model.step(chunk, state)
    heard.append(emissions.tokens)
np.save(output, np.concatenate(heard))
"""

pytestmark = pytest.mark.skipif(
    QEMU is None or platform.machine() != "x86_64", reason="needs an x86-64 machine with qemu-user-static"
)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Of the bundled clip: (chunks, chunk_features, num_mels)."""
    config = Bundle.load(default_bundle()).config
    found = LogMel(config.features).accept_waveform(read_recording(DEMO_RECORDING, config.features.sample_rate_hz))
    size = config.encoder.chunk_features
    path = tmp_path_factory.mktemp("features") / "features.npy"
    np.save(path, found[: CHUNKS * size].reshape(CHUNKS, size, -1))
    return path


def logits(bundle: Path, features: Path, folder: Path, *emulator: str) -> np.ndarray:
    """(T, V) log-probabilities, of this processor or of an emulated one."""
    output = folder / "logits.npy"
    command = [*emulator, sys.executable, "-c", PROGRAM, bundle, features, output]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return np.load(output)


def in_full_range(folder: Path) -> Path:
    """The bundled model with its weights widened from 7 bits to 8: nearly the same matrices."""
    onnx = pytest.importorskip("onnx", reason="graphs are changed with onnx, of the extra `train`")
    shipped = Bundle.load(default_bundle())
    files = {}
    for part, path in shipped.artefact("onnx-int8").items():
        graph = onnx.load(path)
        constants = {tensor.name: tensor for tensor in graph.graph.initializer}
        for node in graph.graph.node:
            if node.op_type == "MatMulInteger":
                weights = onnx.numpy_helper.to_array(constants[node.input[1]])
                scale = constants[node.input[1].removesuffix("_quantized") + "_scale"]
                wide = np.rint(weights * (127 / 64)).astype(np.int8)
                constants[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(wide, node.input[1]))
                narrower = (onnx.numpy_helper.to_array(scale) * (64 / 127)).astype(np.float32)
                scale.CopyFrom(onnx.numpy_helper.from_array(narrower, scale.name))
        files[shipped.artefacts["onnx-int8"][part]] = graph.SerializeToString()
    return replace_in_bundle(default_bundle(), folder / "wide", {}, files).path


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max())


def has_vnni() -> bool:
    return "vnni" in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize("core", ["Nehalem", "Haswell"])
def test_int8_is_the_same_without_vnni(features, tmp_path, core):
    here = logits(default_bundle(), features, tmp_path)
    there = logits(default_bundle(), features, tmp_path, QEMU, "-cpu", core)
    assert difference(there, here) < 0.5
    assert (there.argmax(1) == here.argmax(1)).mean() > 0.98


def test_weights_in_full_range_would_overflow(features, tmp_path):
    if not has_vnni():
        pytest.skip("this processor overflows itself: there is nothing to compare with")
    wide = in_full_range(tmp_path)
    here = logits(wide, features, tmp_path)
    assert difference(here, logits(default_bundle(), features, tmp_path)) < 1
    there = logits(wide, features, tmp_path, QEMU, "-cpu", "Haswell")
    assert difference(there, here) > 1
