"""Boards under emulation hear what this machine hears; `make test-arm` makes their roots."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import soundfile
import soxr

from edgeasr.bundle import Bundle, default_bundle, replace_in_bundle

emulated_board = SimpleNamespace(**run_path(str(Path(__file__).with_name("emulated_board.py"))))
PI_64, PI_32, PI_32_TRIXIE = emulated_board.PI_64, emulated_board.PI_32, emulated_board.PI_32_TRIXIE
run = emulated_board.run

LITE_KINDS = ("litert-int8", "tflite-int8", "onnx-fp32")
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "edgeasr", "converters", "firmware_bridge", "devices")
UTTERANCES = 2  # of dev, the shortest that are longer than 3 s: an emulated core takes several times their length
WORDS = (
    "it was the first time that she had seen the old house\n"
    "there was a man in the house and he had a great deal of money\n"
)

# Packages of an extracted root are not configured, and dpkg knows none of them: apt-get writes down what it is asked.
APT_GET = '#!/bin/sh\necho "$@" >> /root/apt-get\n'


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """The project's wheel, built from a copy of the tree."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        ignored = shutil.ignore_patterns("__pycache__")
        if (repository / name).is_dir():
            shutil.copytree(repository / name, source / name, ignore=ignored)
        else:
            shutil.copy(repository / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    subprocess.run((*pip, "--no-build-isolation", "--wheel-dir", target, source), check=True, capture_output=True)
    return next(target.glob("edgeasr-*.whl"))


def install(board, wheel, home, model=None):
    """What install.sh says, run in the root without a network. model: to hear the clip with"""
    if reason := emulated_board.unusable(board):
        pytest.skip(reason)
    program = home / "apt-get-of-test"
    program.write_text(APT_GET)
    program.chmod(0o755)
    script = emulated_board.REPOSITORY / "devices" / "install.sh"
    binds = {} if model is None else {model: "/mnt/model"}
    binds |= {
        home: "/root",
        program: "/usr/local/bin/apt-get",
        script: "/mnt/install.sh",
        board.wheelhouse: "/mnt/wheels",
        wheel: f"/mnt/{wheel.name}",
    }
    command = ("sh", "/mnt/install.sh", "/root/e", "--no-index", "--find-links", "/mnt/wheels", "--no-compile")
    given = {"INSTALL_PACKAGE": f"/mnt/{wheel.name}"} | ({} if model is None else {"INSTALL_MODEL": "/mnt/model"})
    return run(board, board.cores[-1], command, binds, given)


@pytest.fixture(scope="module")
def speech_files(repository, tmp_path_factory):
    """The bundled clip, and short utterances of dev where they lie."""
    files = [repository / "edgeasr" / "models" / "demo.flac"]
    manifest = repository.parent / "shared" / "speech" / "dev.jsonl"
    if manifest.is_file():
        entries = [json.loads(line) for line in manifest.read_text().splitlines()]
        chosen = sorted((entry for entry in entries if entry["duration"] > 3), key=lambda entry: entry["duration"])
        files += [manifest.parent / entry["audio_filepath"] for entry in chosen[:UTTERANCES]]
    return files


@pytest.fixture(scope="module")
def fast_clip(repository, tmp_path_factory):
    """The first words of the bundled clip at 48 kHz, as most microphones hear."""
    samples, rate_hz = soundfile.read(repository / "edgeasr" / "models" / "demo.flac", dtype="float32")
    path = tmp_path_factory.mktemp("fast") / "clip.wav"
    soundfile.write(path, soxr.resample(samples[: 4 * rate_hz], rate_hz, 48_000), 48_000)
    return path


def heard_here(files, model, python=sys.executable):
    """By this machine, a text a file."""
    command = [python, "-c", "from edgeasr.cli.start import main; main()", "transcribe"]
    done = subprocess.run(
        [*command, *files, "--model", model], check=False, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heard_there(board, core, home, files, model):
    binds = {home: "/root", model: "/mnt/model"} | {file: f"/mnt/speech/{file.name}" for file in files}
    places = [f"/mnt/speech/{file.name}" for file in files]
    done = run(board, core, ["/root/e/bin/edgeasr", "transcribe", *places, "--model", "/mnt/model"], binds)
    assert done.returncode == 0, done.stderr
    # Several files are each announced by the path that was given.
    for file, place in zip(files, places, strict=True):
        done.stdout = done.stdout.replace(place, str(file))
    return done.stdout


@pytest.fixture(scope="module")
def pi_64(wheel, tmp_path_factory):
    """A board after install.sh: its home, and what the script said."""
    home = tmp_path_factory.mktemp("pi64")
    done = install(PI_64, wheel, home)
    assert done.returncode == 0, done.stderr + done.stdout
    return SimpleNamespace(home=home, said=done.stdout)


@pytest.fixture(scope="module")
def lite_bundle(repository, tmp_path_factory):
    """The shipped weights for LiteRT, for tflite-runtime and in fp32, with the shipped language model."""
    program = repository / ".venv-litert" / "bin" / "edgeasr"
    if not (repository / ".venv-litert" / "is-set-up").exists():
        pytest.skip("litert-torch is not set up: `make litert` does it")
    folder = tmp_path_factory.mktemp("lite") / "tiny-en-lite"
    checkpoint = repository / "edgeasr" / "models" / "tiny-en.safetensors"
    kinds = [word for kind in LITE_KINDS for word in ("--artefact", kind)]
    command = (program, "export", checkpoint, *kinds, "--output", folder)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shipped = Bundle.load(default_bundle())
    entry = json.loads((shipped.path / "manifest.json").read_text())["language_model"]
    words = {entry["file"]: shipped.path / entry["file"]}
    return replace_in_bundle(folder, folder, {"language_model": entry}, words)


def only(bundle, kind):
    """The bundle with this artefact alone."""
    changes = {"artefacts": {kind: bundle.artefacts[kind]}, "default_artefact": kind}
    return replace_in_bundle(bundle.path, bundle.path.with_name(f"tiny-en-{kind}"), changes, {}).path


@pytest.fixture(scope="module")
def litert_model(lite_bundle):
    return only(lite_bundle, "litert-int8")


@pytest.fixture(scope="module")
def tflite_model(lite_bundle):
    return only(lite_bundle, "tflite-int8")


@pytest.fixture(scope="module")
def tflite_python():
    """A Python of this machine in which tflite-runtime runs models."""
    python = emulated_board.TFLITE_HERE / "bin" / "python"
    if not python.exists():
        pytest.skip("no tflite-runtime on this machine: `make test-arm` makes an environment with it")
    return python


@pytest.fixture(scope="module")
def pi_32(wheel, tflite_model, tmp_path_factory):
    """A board of 32 bits after install.sh: its home, and what the script said."""
    home = tmp_path_factory.mktemp("pi32")
    done = install(PI_32, wheel, home, tflite_model)
    assert done.returncode == 0, done.stderr + done.stdout
    return SimpleNamespace(home=home, said=done.stdout)


def test_install_asks_for_the_packages_and_hears_the_clip(pi_64):
    asked = (pi_64.home / "apt-get").read_text().split()
    assert asked[-4:] == ["python3-venv", "libportaudio2", "gcc", "libc6-dev"]
    assert WORDS in pi_64.said
    assert "edgeasr doctor" in pi_64.said


@pytest.mark.parametrize("core", PI_64.cores)
def test_onnx_int8_hears_what_this_machine_hears(pi_64, speech_files, core):
    model = default_bundle()
    here = heard_here(speech_files, model)
    assert WORDS.splitlines()[0] in here
    assert heard_there(PI_64, core, pi_64.home, speech_files, model) == here


@pytest.mark.parametrize("core", PI_64.cores)
def test_litert_int8_hears_what_this_machine_hears(pi_64, litert_model, speech_files, core):
    pip = ("/root/e/bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--find-links", "/mnt/wheels")
    binds = {pi_64.home: "/root", PI_64.wheelhouse: "/mnt/wheels"}
    done = run(PI_64, core, (*pip, "--no-compile", "ai-edge-litert"), binds)
    assert done.returncode == 0, done.stderr
    here = heard_here(speech_files, litert_model)
    assert WORDS.splitlines()[0] in here
    assert heard_there(PI_64, core, pi_64.home, speech_files, litert_model) == here


def test_an_emulated_core_is_seen_as_the_board_that_it_is(pi_64):
    doctor = run(PI_64, "cortex-a53", ["/root/e/bin/edgeasr", "doctor", "--json"], {pi_64.home: "/root"})
    findings = {finding["name"]: finding for finding in json.loads(doctor.stdout)["findings"]}
    assert findings["packages"]["status"] == "ok", findings["packages"]
    assert findings["wheels"]["status"] == "ok", findings["wheels"]
    assert "aarch64" in findings["wheels"]["found"]


def test_a_board_of_32_bits_is_given_what_it_needs_and_hears_the_clip(pi_32):
    asked = (pi_32.home / "apt-get").read_text().split()
    assert asked[-6:] == ["python3-venv", "libportaudio2", "python3-numpy", "python3-cffi", "libsndfile1", "libsoxr0"]
    assert WORDS in pi_32.said


@pytest.mark.parametrize("core", PI_32.cores)
def test_tflite_int8_hears_what_this_machine_hears(pi_32, tflite_model, tflite_python, speech_files, core):
    here = heard_here(speech_files, tflite_model, tflite_python)
    assert WORDS.splitlines()[0] in here
    assert heard_there(PI_32, core, pi_32.home, speech_files, tflite_model) == here


def test_other_rates_are_heard_without_the_package_soxr(pi_32, tflite_model, tflite_python, fast_clip):
    absent = run(PI_32, PI_32.cores[0], ["/root/e/bin/python", "-c", "import soxr"], {pi_32.home: "/root"})
    assert "No module named 'soxr'" in absent.stderr
    here = heard_here([fast_clip], tflite_model, tflite_python)
    assert "it was the first time" in here
    assert heard_there(PI_32, PI_32.cores[0], pi_32.home, [fast_clip], tflite_model) == here


def test_32_bits_of_trixie_hear_the_clip_with_debians_onnx_runtime(wheel, tmp_path):
    done = install(PI_32_TRIXIE, wheel, tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "apt-get").read_text().split()[-1] == "python3-onnxruntime"
    assert WORDS in done.stdout


def test_doctor_of_32_bits_misses_nothing_that_is_not_made_for_them(pi_32, tflite_model):
    binds = {pi_32.home: "/root", tflite_model: "/mnt/model"}
    command = ("/root/e/bin/edgeasr", "doctor", "--json", "--model", "/mnt/model")
    doctor = run(PI_32, PI_32.cores[0], command, binds)
    findings = {finding["name"]: finding for finding in json.loads(doctor.stdout)["findings"]}
    for name in ("system", "packages", "wheels", "model"):
        assert findings[name]["status"] == "ok", findings[name]
    assert "32-bit: models run on tflite_runtime" in findings["system"]["found"]
    assert findings["predicted"]["status"] == "skipped"


def test_tflite_int8_costs_less_than_a_word_in_a_hundred(lite_bundle, tflite_python, speech):
    command = [tflite_python, "-c", "from edgeasr.cli.start import main; main()", "evaluate", speech / "dev.jsonl"]
    options = ("--json", "--decoder", "greedy", "--model", lite_bundle.path, "--backend")
    kinds = ("tflite-int8", "onnx-fp32")
    # At once: each is busy for a minute.
    running = [subprocess.Popen([*command, *options, kind], stdout=subprocess.PIPE, text=True) for kind in kinds]
    errors = {kind: json.loads(one.communicate()[0])["wer"] for kind, one in zip(kinds, running, strict=True)}
    assert errors["tflite-int8"] - errors["onnx-fp32"] < 0.01, errors
