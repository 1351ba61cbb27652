# ruff: noqa: E402 - torch is looked for before the modules that import it
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from rich.console import Console

from edgeasr.cli.train import _Display
from edgeasr.train.checkpoint import Checkpoint, load_tensors
from edgeasr.train.processes import Progress

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
FOREVER = 10**6  # steps


@pytest.fixture
def recipe(toy_folder, toy_model_toml, tmp_path):
    """A recipe file of the language of tones; its run writes into the folder `run`."""
    path = tmp_path / "toy.toml"
    path.write_text(f"""
        {toy_model_toml}
        [features]
        num_mels = 20
        [data]
        train = ["{toy_folder / "train.jsonl"}"]
        dev = ["{toy_folder / "dev.jsonl"}"]
        max_duration_s = 3.0
        batch_s = 6.0
        [optimizer]
        steps = 4
        warmup_steps = 2
        [run]
        directory = "{tmp_path / "run"}"
        save_every = 2
        log_every = 1
    """)
    return path


def started(*arguments: object) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgeasr.cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {step} of"):
            return
    pytest.fail(f"no step {step}: {process.stderr and process.stderr.read()}")


def saved_step(folder: Path) -> int:
    return Checkpoint.load(folder / "last.safetensors").training["step"]


def test_a_run_prints_lines_and_what_to_do_next(recipe, tmp_path):
    code, out, err = edgeasr("train", recipe)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"Writing to {tmp_path / 'run'}"
    assert [line.split(",")[0] for line in lines if line.startswith("step")][:4] == [
        f"step {n} of 4" for n in range(1, 5)
    ]
    assert lines[-1] == (
        f"Trained to step 4; next: edgeasr export {tmp_path / 'run' / 'best.safetensors'} --output BUNDLE"
    )
    assert Checkpoint.load(tmp_path / "run" / "best.safetensors").training["step"] == 4
    code, out, err = edgeasr("train", recipe)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"Going on with {tmp_path / 'run'}"
    assert out.splitlines()[-1] == lines[-1]
    assert not [line for line in out.splitlines() if line.startswith("step")]


def test_options_take_the_place_of_the_recipe_s(recipe, tmp_path):
    assert edgeasr("train", recipe, "--steps", "2").code == 0
    assert saved_step(tmp_path / "run") == 2
    best = tmp_path / "run" / "best.safetensors"
    second = recipe.with_name("second.toml")
    second.write_text(recipe.read_text().replace('/run"', '/second"'))
    assert edgeasr("train", second, "--init", best, "--steps", "2").code == 0
    initial, trained = Checkpoint.load(best).weights, Checkpoint.load(tmp_path / "second" / "best.safetensors").weights
    assert torch.equal(initial["feature_mean"], trained["feature_mean"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--processes", "0"), "--processes"),
        (("--steps", "1"), "--steps"),
        (("--faster",), "No such option: --faster"),
    ],
)
def test_wrong_use_is_explained(recipe, arguments, message):
    code, out, err = edgeasr("train", recipe, *arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 4", "stops = 4", "toy.toml: [optimizer] unknown key 'stops' in OptimizerConfig"),
        ("train.jsonl", "none.jsonl", "cannot read the manifest"),
        ("[run]", "[runs]", "toy.toml: unknown table [runs]"),
    ],
)
def test_a_bad_recipe_is_one_line(recipe, old, new, message):
    recipe.write_text(recipe.read_text().replace(old, new))
    code, _, err = edgeasr("train", recipe)
    assert code == 2
    assert err.startswith("edgeasr: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_killed_run_is_gone_on_with(recipe, tmp_path):
    with started("train", recipe, "--steps", FOREVER) as process:
        wait_for(process, 4)
        process.kill()
    step = load_tensors(tmp_path / "run" / "resume.safetensors")[1]["progress"]
    code, out, err = edgeasr("train", recipe, "--steps", "2")
    assert (code, err) == (0, "")
    assert out.startswith(f"Going on with {tmp_path / 'run'}\n")
    assert load_tensors(tmp_path / "run" / "resume.safetensors")[1]["progress"] == step


def test_ctrl_c_saves_the_step_in_all_processes(recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("save_every = 2", f"save_every = {FOREVER}"))
    with started("train", recipe, "--steps", FOREVER, "--processes", "2") as process:
        wait_for(process, 1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert err == "Stopping after this step; once more to stop at once\n"
    last = out.splitlines()[-1]
    assert last.startswith("Stopped, saved at step ")
    step = int(last.split()[4].rstrip(":"))
    assert last == f"Stopped, saved at step {step}: the same command goes on from there"
    progress = load_tensors(tmp_path / "run" / "resume.safetensors")[1]["progress"]
    assert f'"step": {step},' in progress


def test_a_terminal_shows_bars_below_the_lines():
    screen = io.StringIO()
    display = _Display(Console(file=screen, force_terminal=True, width=90, legacy_windows=False))
    with display:
        display.watch(Progress("decoding", 5, 20))
        display.report("step 7 of 10: loss 2.5 [not markup]")
        display.watch(Progress("training", 7, 10, "loss 2.500"))
        display.watch(Progress("saved", 7, 10))
    shown = screen.getvalue()
    assert display.saved_step == 7
    assert "step 7 of 10: loss 2.5 [not markup]\n" in shown
    for part in ("decoding", "5/20", "training", "7/10", "loss 2.500"):
        assert part in shown
    assert "saved" not in shown


def test_a_pipe_gets_lines_alone(capsys):
    with _Display() as display:
        display.watch(Progress("training", 7, 10, "loss 2.500"))
        display.report("step 7 of 10: [loss] 2.5")
    assert capsys.readouterr() == ("step 7 of 10: [loss] 2.5\n", "")
