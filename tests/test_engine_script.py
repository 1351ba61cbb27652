import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeasr.backends import cuda_runtime
from edgeasr.backends.engine_cache import engine_folder, stored_engine
from edgeasr.bundle import Bundle, default_bundle, replace_in_bundle, write_bundle
from edgeasr.cli.export_table import engine_notes
from edgeasr.converters.engine_script import engine_scripts, trtexec_flags
from edgeasr.errors import AcceleratorError, BundleError
from edgeasr.model import AcousticModel

imitated = SimpleNamespace(**run_path(str(Path(__file__).with_name("imitated_gpu.py"))))
toolchain = SimpleNamespace(**run_path(str(Path(__file__).with_name("toolchain.py"))))

# Writes down what it is told, and an engine of the graph; TRTEXEC_SAYS is what it prints, TRTEXEC_ENDS its status.
TRTEXEC = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
from runpy import run_path

with Path(os.environ["TRTEXEC_LOG"]).open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
print(os.environ["TRTEXEC_SAYS"])
options = dict(one.partition("=")[::2] for one in sys.argv[1:])
model = Path(options["--onnx"]).read_bytes()
if os.environ["TRTEXEC_ENDS"] == "0":
    engine_of = run_path({str(Path(__file__).with_name("imitated_gpu.py"))!r})["engine_of"]
    Path(options["--saveEngine"]).write_bytes(engine_of(model))
sys.exit(int(os.environ["TRTEXEC_ENDS"]))
"""
OF_ORIN = (
    "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b26] # trtexec --onnx=a\n"
    "[11/29/2026-10:00:00] [I] Selected Device: Orin\n[11/29/2026-10:00:00] [I] Compute Capability: 8.7"
)
OF_NANO = "&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec\n[I] Compute Capability: 5.3"


def written(
    folder: Path, *kinds: str, tensorrt: str = "10", like: Path | None = None, graphs: dict[str, bytes] | None = None
) -> Bundle:
    """A bundle of two graphs in each of these artefacts, and its script.

    like, graphs: a bundle with the same manifest, and the graphs by part; those of the shipped one unless given
    """
    like = like or default_bundle()
    manifest = json.loads((like / "manifest.json").read_text())
    named = manifest["artefacts"]["onnx-int8"]
    graphs = graphs or {part: (like / name).read_bytes() for part, name in named.items()}
    files, artefacts = {}, {}
    for kind in kinds:
        artefacts[kind] = {}
        for part, graph in graphs.items():
            file = f"{part}.{kind}.onnx"
            # The graphs are told apart by an empty field that no reader knows.
            files[file] = graph + bytes([0xFA, 0x7F, len(kind)]) + kind.encode()
            artefacts[kind][part] = file
    files |= engine_scripts(tensorrt, artefacts, files)
    changes = {"artefacts": artefacts, "default_artefact": kinds[0], "name": folder.name}
    others = ("files", "language_model", "transducer", "format_version")
    kept = {key: value for key, value in manifest.items() if key not in others}
    return write_bundle(folder, kept | changes, files)


@pytest.fixture
def device(tmp_path, monkeypatch):
    """An empty home with a trtexec on PATH, and how to run the script there."""
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(TRTEXEC)
    program.chmod(0o755)
    told = tmp_path / "told.jsonl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))

    def run(bundle: Bundle, *arguments: str, says: str = OF_ORIN, ends: int = 0, **environment: str):
        script = bundle.path / "build_engine.sh"
        variables = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path / "a cache"),
            "TRTEXEC_LOG": str(told),
            "TRTEXEC_SAYS": says,
            "TRTEXEC_ENDS": str(ends),
            **environment,
        }
        return subprocess.run(["sh", script, *arguments], env=variables, capture_output=True, text=True, check=False)

    def calls():
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    return SimpleNamespace(run=run, calls=calls, program=program)


def test_every_engine_is_built_where_the_runner_looks_and_with_the_flags_of_its_precision(device, tmp_path):
    bundle = written(tmp_path / "a folder" / "toy", "tensorrt-fp16", "tensorrt-fp32", "tensorrt-int8")
    done = device.run(bundle)
    assert (done.returncode, done.stderr) == (0, "")
    engines = tmp_path / "a cache" / "edgeasr" / "engines"
    wanted = []
    for kind in ("tensorrt-fp16", "tensorrt-fp32", "tensorrt-int8"):
        for path in bundle.artefact(kind).values():
            more = ["--noTF32"] if kind == "tensorrt-fp32" else []
            common = ["--skipInference", "--memPoolSize=workspace:512", "--stronglyTyped", *more]
            wanted.append([f"--onnx={path}", f"--timingCacheFile={engines / 'timing.cache'}", *common])
            found = stored_engine(path)
            assert found.content == imitated.engine_of(path.read_bytes())
            assert (found.record.tensorrt, found.record.compute_capability) == ("10.3.0", "8.7")
            assert found.path.stat().st_mode & 0o077 == 0
    calls = device.calls()
    assert [[one for one in call if not one.startswith("--saveEngine=")] for call in calls] == wanted
    assert engines == engine_folder()
    assert {path.suffix for path in engines.iterdir()} == {".engine", ".json", ".log"}
    assert Bundle.load(bundle.path).files.keys() == bundle.files.keys()


@pytest.mark.skipif(bool(toolchain.missing("gcc")), reason=str(toolchain.missing("gcc")))
def test_the_runner_runs_what_the_script_built(device, tmp_path, monkeypatch, exported):
    library = imitated.build_library(tmp_path)
    monkeypatch.setattr(cuda_runtime, "find_library", lambda name: str(library))
    monkeypatch.setitem(sys.modules, "tensorrt", imitated.imitated_tensorrt(library))
    # TensorRT is given the graphs as they were exported, without ONNX Runtime's operators and windows.
    bundle = written(tmp_path / "toy", "tensorrt-fp16", like=exported.bundle.path, graphs=exported.onnx)
    with pytest.raises(AcceleratorError, match=rf"build_engine\.sh of {bundle.path}"):
        AcousticModel(bundle, backend="tensorrt")
    assert device.run(bundle).returncode == 0
    models = [AcousticModel(bundle, backend=backend) for backend in ("tensorrt", "onnxruntime")]
    states, rng = [model.init_state() for model in models], np.random.default_rng(0)
    config = models[0].config
    encoder = config.encoder
    for _ in range(encoder.level_spans[0] // encoder.chunk_frames + 5):  # five more than complete a summary
        chunk = rng.normal(size=(encoder.chunk_features, config.features.num_mels)).astype(np.float32)
        steps = [model.step(chunk, state) for model, state in zip(models, states, strict=True)]
        np.testing.assert_array_equal(steps[0][0].tokens, steps[1][0].tokens)
        states = [state for _, state in steps]
    assert states[0]["state.bank.0.number"].max() >= 0
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)


def test_an_engine_that_is_there_is_left_alone(device, tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    device.run(bundle)
    engine = stored_engine(bundle.artefact()["step"]).path
    before = engine.stat()
    done = device.run(bundle)
    assert (done.returncode, len(device.calls())) == (0, 2)
    assert f"there already, {engine}" in done.stdout
    assert engine.stat() == before
    engine.with_suffix(".json").unlink()
    device.run(bundle)
    assert len(device.calls()) == 3


def test_for_tensorrt_8_the_flags_are_its_own(device, tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16", tensorrt="8.2")
    assert device.run(bundle, says=OF_NANO).returncode == 0
    assert [call[3:] for call in device.calls()] == [["--buildOnly", "--workspace=512", "--fp16"]] * 2
    record = stored_engine(bundle.artefact()["step"]).record
    assert (record.tensorrt, record.compute_capability) == ("8.2.1", "5.3")
    assert trtexec_flags("8.2", "tensorrt-int8")[-1] == "--int8"
    assert trtexec_flags("8.2", "tensorrt-fp32")[-1] == "--noTF32"


def test_artefacts_may_be_named(device, tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16", "tensorrt-int8")
    assert device.run(bundle, "tensorrt-int8").returncode == 0
    assert [Path(call[0]).name for call in device.calls()] == ["step.tensorrt-int8.onnx", "memory.tensorrt-int8.onnx"]
    done = device.run(bundle, "onnx-int8")
    assert (done.returncode, len(device.calls())) == (2, 2)
    assert done.stderr == "build_engine.sh: got artefact onnx-int8, wanted some of tensorrt-fp16 tensorrt-int8\n"


def test_what_trtexec_does_not_say_is_left_empty(device, tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    assert device.run(bundle, says="nothing").returncode == 0
    record = stored_engine(bundle.artefact()["step"]).record
    assert (record.tensorrt, record.compute_capability) == ("", "")


def test_a_build_that_fails_leaves_no_engine_and_says_why(device, tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    done = device.run(bundle, says="[E] [TRT] Internal error: no kernel\n[E] Engine could not be created", ends=1)
    assert done.returncode == 2
    assert done.stderr.startswith("build_engine.sh: trtexec fails on step.tensorrt-fp16.onnx, see ")
    assert done.stderr.endswith(": [E] Engine could not be created\n")
    assert [path.suffix for path in engine_folder().iterdir()] == [".log"]
    assert done.stderr.count("\n") == 1


def test_a_graph_that_was_changed_or_left_behind_is_refused(device, tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    step = bundle.artefact()["step"]
    step.write_bytes(step.read_bytes() + b"\0")
    done = device.run(bundle)
    assert (done.returncode, device.calls()) == (2, [])
    assert "step.tensorrt-fp16.onnx is not what was exported: copy the bundle again" in done.stderr
    step.unlink()
    done = device.run(bundle)
    assert done.returncode == 2
    assert "has no step.tensorrt-fp16.onnx: copy the whole bundle" in done.stderr


def test_without_trtexec_it_says_what_brings_it(device, tmp_path):
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("TensorRT is installed here")
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    done = device.run(bundle, PATH=os.environ["PATH"])
    assert done.returncode == 2
    assert done.stderr == (
        "build_engine.sh: got no trtexec, wanted that of JetPack: apt install libnvinfer-bin, or set TRTEXEC\n"
    )
    assert device.run(bundle, PATH=os.environ["PATH"], TRTEXEC=str(device.program)).returncode == 0


@pytest.mark.parametrize("given", ["", "relative"])
def test_the_cache_is_that_of_the_home_where_no_other_is_named(device, tmp_path, given):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    assert device.run(bundle, XDG_CACHE_HOME=given).returncode == 0
    sha256 = hashlib.sha256(bundle.artefact()["step"].read_bytes()).hexdigest()
    assert (tmp_path / ".cache" / "edgeasr" / "engines" / f"{sha256}.engine").is_file()


def test_the_script_stays_in_a_bundle_that_is_changed(tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    changed = replace_in_bundle(bundle.path, tmp_path / "other.edgeasr", {"wer": {"dev": 0.5}}, {})
    assert changed.content("build_engine.sh") == bundle.content("build_engine.sh")
    (bundle.path / "build_engine.sh").write_text("#!/bin/sh\n")
    with pytest.raises(BundleError, match=r"build_engine\.sh has 10 bytes"):
        Bundle.load(bundle.path)


def test_a_bundle_without_artefacts_for_tensorrt_has_none():
    assert engine_scripts("10", {"onnx-int8": {"step": "step.int8.onnx"}}, {}) == {}


def test_export_says_how_it_goes_on(tmp_path):
    bundle = written(tmp_path / "toy", "tensorrt-fp16")
    assert engine_notes(bundle) == ["on the Jetson: sh toy/build_engine.sh, then --model toy --backend tensorrt"]
    archive = replace_in_bundle(bundle.path, tmp_path / "toy.edgeasr", {}, {})
    (note,) = engine_notes(archive)
    assert note.startswith("on the Jetson: unzip toy.edgeasr -d toy and sh toy/build_engine.sh, then ")
    assert engine_notes(Bundle.load(default_bundle())) == []


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_shells_take_it(tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = written(tmp_path / "toy", "tensorrt-fp16").path / "build_engine.sh"
    assert subprocess.run([shell, "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("which", ["build_engine.sh", "install.sh"])
def test_shellcheck_has_nothing_to_say(tmp_path, repository, which):
    if shutil.which("shellcheck") is None:
        pytest.skip("not installed: apt-get install shellcheck")
    folder = written(tmp_path / "toy", "tensorrt-fp16").path if which == "build_engine.sh" else repository / "devices"
    done = subprocess.run(["shellcheck", folder / which], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
