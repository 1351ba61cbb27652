# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import os
import signal
import socket
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.corpora.opening import Reading, shuffled
from edgeasr.corpora.shard_writing import write_shards
from edgeasr.encoder import Encoder
from edgeasr.errors import ConfigError
from edgeasr.train.checkpoint import load_tensors
from edgeasr.train.data import Batch
from edgeasr.train.loop import train
from edgeasr.train.loss import twice, views_loss
from edgeasr.train.processes import Place


@pytest.fixture
def recipe(toy_folder, toy_model_toml, tmp_path):
    """Recipe files of the language of tones in shards, one for each name."""
    for part in range(2):
        write_shards(shuffled([str(toy_folder / "train.jsonl")], Reading(), part), tmp_path / f"shards{part}", 1)

    def written(name):
        path = tmp_path / f"{name}.toml"
        path.write_text(f"""
            {toy_model_toml}
            dropout = 0.0
            [features]
            num_mels = 20
            [data]
            shards = ["{tmp_path}/shards{{0..1}}/shard-000000.tar"]
            dev = ["{toy_folder / "dev.jsonl"}"]
            max_duration_s = 3.0
            batch_s = 6.0
            buffer_s = 12.0
            [optimizer]
            steps = 4
            warmup_steps = 2
            bf16 = false
            [run]
            directory = "{tmp_path / name}"
            log_every = 1
            save_every = 1
            loaders = 1
        """)
        return path

    return written


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_nodes_of_torchrun_train_as_two_processes_do(recipe, tmp_path):
    port, environment = free_port(), os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")
    place = ("--master-addr", "127.0.0.1", "--master-port", str(port))
    command = ("-m", "edgeasr.cli.main", "train", str(recipe("torchrun")))
    nodes = [
        subprocess.Popen(
            [*torchrun, *place, "--node-rank", str(rank), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "2 processes, step 0" in said[0][0]
    assert "Trained to step 4" in said[0][0]
    assert said[1][0] == ""
    here = (sys.executable, "-m", "edgeasr.cli.main", "train", str(recipe("here")), "--processes", "2")
    assert subprocess.run(here, env=environment, check=False, capture_output=True).returncode == 0
    a, b = (load_tensors(tmp_path / name / "resume.safetensors")[0] for name in ("torchrun", "here"))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


def test_a_run_from_shards_that_is_killed_goes_on_bit_for_bit(recipe, tmp_path):
    def command(name):
        return (sys.executable, "-m", "edgeasr.cli.main", "train", str(recipe(name)))

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run(command("straight"), env=environment, check=False, capture_output=True).returncode == 0
    with subprocess.Popen(command("killed"), stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        assert any(line.startswith("step 2 of") for line in run.stdout)
        run.kill()
    assert run.returncode == -signal.SIGKILL
    assert load_tensors(tmp_path / "killed" / "resume.safetensors")[0].keys()
    again = subprocess.run(command("killed"), env=environment, check=False, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stdout.startswith("Going on with")
    a, b = (load_tensors(tmp_path / name / "resume.safetensors")[0] for name in ("straight", "killed"))
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_without_a_gpu_for_each_process_training_on_gpus_is_refused(toy_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    recipe = toy_recipe(tmp_path, run={"device": "cuda"})
    with pytest.raises(ConfigError, match="got 1 GPUs that torch can use, wanted one for process 2 of this machine"):
        Place(1, 2, 1).device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="got 0 GPUs that torch can use, wanted one for process 1 of this machine"):
        train(recipe, lambda line: None)
    with pytest.raises(ConfigError, match="device is 'tpu': it must be one of cpu, cuda"):
        toy_recipe(tmp_path, run={"device": "tpu"})


@pytest.mark.parametrize("options", [{}, {"write_gate": True, "merge_similarity": 0.8}])
def test_nothing_of_a_step_is_left_on_the_cpu(toy_model, monkeypatch, options):
    """By the device `meta`, which refuses to meet tensors of another as a GPU does, and computes nothing."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: False)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: torch.zeros(t.shape, dtype=t.dtype))
    model = dataclasses.replace(toy_model(**options), phone_vocabulary_size=41)
    ids = [torch.zeros(2, *size, dtype=torch.int64) for size in ((), (4,), (), (4,), ())]
    batch = twice(Batch(torch.zeros(2, 320, 20), *ids).to(torch.device("meta")))
    encoder = Encoder(model).to("meta").train()
    emissions = encoder(batch.features, 4)
    assert emissions.phones is not None
    loss = views_loss(emissions, batch.frames, 0.4) + emissions.final.sum() + emissions.lower.sum()
    loss.backward()
    assert {p.grad.device.type for p in encoder.parameters() if p.grad is not None} == {"meta"}
