import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

import edgeasr as package
from edgeasr.cli.main import COMMANDS
from edgeasr.errors import BundleError
from edgeasr.recording import DEMO_RECORDING

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
REPOSITORY = Path(__file__).parents[1]


def test_version():
    assert edgeasr("--version") == (0, f"edgeasr {package.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_the_commands(flag):
    code, out, err = edgeasr(flag)
    assert (code, err) == (0, "")
    listed = out.split("Commands:\n")[1].split()
    assert {"listen", "transcribe", "evaluate"} <= set(listed)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    code, out, err = edgeasr(name, "-h")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: edgeasr {name} ")
    assert "--install-completion" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sing",), "No such command 'sing'"),
        (("listen", "--loudly"), "No such option: --loudly"),
        (("transcribe",), "Missing argument 'FILE...'"),
        (("evaluate",), "Missing argument 'MANIFEST'"),
        (("listen", "--threads", "0"), "--threads"),
        (("evaluate", "some.jsonl", "--limit", "0"), "--limit"),
    ],
)
def test_wrong_use_is_explained(arguments, message):
    code, out, err = edgeasr(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: edgeasr" in err
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (("--version",), ("numpy", "soundfile", "soxr", "onnxruntime")),
        (("--help",), ("numpy", "soundfile", "soxr", "onnxruntime")),
        (("transcribe", "missing.wav", "--model", "missing"), ("onnxruntime", "sounddevice")),
        (("listen", "--source", "missing.wav"), ("onnxruntime", "sounddevice", "edgeasr.firmware_bridge.source")),
        (("listen", "--source", "missing.wav"), ("edgeasr.cli.train", "edgeasr.cli.transcribe", "edgeasr.cli.lm")),
    ],
)
def test_a_command_imports_what_it_needs(arguments, heavy):
    never = ("torch", "librosa", "rich", "pydantic")
    program = (
        f"import sys, atexit; atexit.register(lambda: print([n for n in {(*heavy, *never)} if n in sys.modules]))\n"
        "from edgeasr.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments", [("transcribe", DEMO_RECORDING), ("listen", "--source", DEMO_RECORDING), ("serve", "--port", "0")]
)
def test_words_are_made_ready_before_the_model_takes_memory(arguments, monkeypatch):
    def keep_words(bundle):
        raise BundleError(f"words of {bundle.name}")

    monkeypatch.setattr("edgeasr.recognizer.keep_words", keep_words)
    monkeypatch.delattr("edgeasr.recognizer.AcousticModel")
    assert edgeasr(*arguments, scripted=False) == (2, "", "edgeasr: error: words of tiny-en\n")


def test_an_error_of_the_system_is_one_line(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    code, out, err = edgeasr("transcribe", "talk.wav", "--output-dir", in_the_way)
    assert (code, out) == (2, "")
    assert err == f"edgeasr: error: File exists: {in_the_way}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_standard_streams_may_be_closed(closed):
    command = f'"{sys.executable}" -c "from edgeasr.cli.start import main; main()" --version {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("edgeasr ") is (not closed.startswith(">"))


def test_an_interrupt_while_it_is_imported_is_quiet():
    program = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from edgeasr.cli.start import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_program_starts_where_it_says():
    program = "from edgeasr.cli.start import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"edgeasr {package.__version__}\n")


def test_the_package_runs_as_the_program():
    command = [sys.executable, "-m", "edgeasr", "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"edgeasr {package.__version__}\n")
