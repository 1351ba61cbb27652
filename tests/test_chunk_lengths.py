"""Bundles that can run in chunks of more than one length."""

# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import shutil
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

from edgeasr.bundle import MANIFEST_NAME, Bundle
from edgeasr.converters.export import export
from edgeasr.converters.signature import in_chunks
from edgeasr.errors import BundleError, ConfigError
from edgeasr.features import log_mel
from edgeasr.ladder import Rung
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Final

RATE = 16_000
edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]


@pytest.fixture(scope="module")
def made(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chunks") / "toy-model"
    return export(exported.checkpoint, folder, ["onnx-fp32"], exported.recording, chunk_lengths_ms=[320, 160, 320, 80])


@pytest.fixture(scope="module")
def model(made):
    return AcousticModel(made.bundle)


@pytest.fixture(scope="module")
def waveform(exported):
    speech, _ = soundfile.read(exported.recording, dtype="float32")
    return np.concatenate([speech, np.zeros(2 * RATE, np.float32)] * 3)


def hear(recognizer, waveform, before_step=lambda: None, *, as_features=False):
    """The finals, and the lengths of the chunks that were run."""
    recognizer.reset()
    events, lengths = [], []
    if as_features:
        recognizer.accept_features(log_mel(waveform, recognizer.model.config.features))
    else:
        recognizer.accept_waveform(waveform, RATE)
    while recognizer.is_ready() or not recognizer._finished:
        if not recognizer.is_ready():
            recognizer.input_finished()
            continue
        before_step()
        if not recognizer.is_ready():
            continue
        before_s = recognizer.heard_s
        events += recognizer.step()
        lengths.append(round((recognizer.heard_s - before_s) * 1000))
    return [event.text for event in events if isinstance(event, Final)], lengths


class TestExport:
    def test_compares_every_length_with_torch(self, made):
        assert [(parity.chunk_ms, parity.agreement) for parity in made.parities] == [(160, 1.0), (320, 1.0), (80, 1.0)]
        assert made.parities[1].chunks == made.parities[0].chunks / 2
        parts = {"step": "step.fp32.onnx", "step.320": "step.320.fp32.onnx", "step.80": "step.80.fp32.onnx"}
        assert made.bundle.artefacts["onnx-fp32"] == {**parts, "memory": "memory.fp32.onnx"}

    def test_is_described_with_all_of_them(self, made):
        out = edgeasr("describe", made.bundle.path).out
        assert out.startswith(f"{made.bundle.name}: chunks of 160 or 80 or 320 ms, ")

    def test_takes_no_length_that_is_no_chunk(self, exported, tmp_path):
        for length, message in ((170, "wanted a multiple of 40 ms"), (640, "multiple of 40 ms up to 320 ms")):
            with pytest.raises(ConfigError, match=message):
                export(exported.checkpoint, tmp_path / "model", ["onnx-fp32"], chunk_lengths_ms=[length])
        assert not (tmp_path / "model").exists()

    def test_shares_the_weights(self, exported):
        encoder = exported.encoder
        longer = in_chunks(encoder, 320)
        assert longer.config == encoder.config.with_chunk(320)
        assert encoder.config.chunk_ms == 160
        assert next(longer.parameters()) is next(encoder.parameters())


class TestModel:
    def test_knows_its_lengths(self, model, exported):
        assert model.chunk_lengths_ms == (160, 80, 320)
        assert AcousticModel(exported.bundle).chunk_lengths_ms == (160,)

    def test_of_another_length_goes_on_with_the_state_of_the_first(self, model, exported):
        """Chunk by chunk as torch does, the length changing on the way."""
        rng = np.random.default_rng(1)
        features = rng.standard_normal((80, 20)).astype(np.float32)
        state, torch_state, start = model.init_state(), exported.encoder.init_state(1), 0
        for chunk_ms in (160, 160, 320, 80, 80):
            length = chunk_ms // 10
            x = features[start : start + length]
            found, state = model.variant(threads=1, chunk_ms=chunk_ms).step(x, state)
            with torch.no_grad():
                wanted, torch_state = in_chunks(exported.encoder, chunk_ms).step(torch.from_numpy(x)[None], torch_state)
            np.testing.assert_allclose(found.tokens, wanted.final[0].numpy(), atol=1e-3)
            start += length
        assert int(state["state.seen"][0]) == start // 4

    def test_of_another_length_is_the_same_otherwise(self, model):
        longer = model.variant(threads=2, chunk_ms=320)
        assert (longer.threads, longer.config.chunk_ms, longer.config.encoder.chunk_frames) == (2, 320, 8)
        assert (model.threads, model.config.chunk_ms) == (1, 160)
        assert longer.fingerprint == model.fingerprint
        assert longer.variant(threads=1, chunk_ms=160).config == model.config

    def test_has_no_other_length(self, model):
        with pytest.raises(
            ConfigError, match=r"chunks of 640 ms, the bundle toy-model has 160, 80, 320 ms: .*--chunk-ms"
        ):
            model.variant(threads=1, chunk_ms=640)

    def test_summaries_compare_with_those_of_a_bundle_without_other_lengths(self, model, exported):
        files = exported.bundle.files
        same = [
            files[name].sha256 == model._bundle.files[name].sha256 for name in ("step.fp32.onnx", "memory.fp32.onnx")
        ]
        assert same == [True, True]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda step: step["inputs"]["features"].update(shape=[1, 16, 20]), "'features' of step.320"),
            (
                lambda step: step["inputs"]["state.bank.0.number"].update(shape=[1, 9]),
                "'state.bank.0.number' of step.320",
            ),
        ],
    )
    def test_refuses_steps_that_do_not_fit_together(self, made, tmp_path, change, message):
        self.refused(made, tmp_path, lambda manifest: change(manifest["signature"]["step.320"]), message)

    def test_refuses_a_step_of_no_length(self, made, tmp_path):
        for name, message in (("step.170", "the part step.170: .*multiple of 40"), ("step.x", "its config wants")):

            def rename(manifest, name=name):
                manifest["signature"][name] = manifest["signature"].pop("step.320")
                parts = manifest["artefacts"]["onnx-fp32"]
                parts[name] = parts.pop("step.320")

            self.refused(made, tmp_path / name, rename, message)

    def refused(self, made, folder, change, message):
        shutil.copytree(made.bundle.path, folder / "changed")
        path = folder / "changed" / MANIFEST_NAME
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match=message):
            AcousticModel(Bundle.load(folder / "changed"))


class TestRecognizer:
    @pytest.mark.parametrize("as_features", [False, True])
    def test_in_chunks_of_any_length_hears_the_same(self, model, waveform, as_features):
        recognizer = Recognizer(model)
        wanted, lengths = hear(recognizer, waveform, as_features=as_features)
        assert len(wanted) == 3
        assert set(lengths) == {160}
        recognizer.use(Rung("greedy", 320))
        found, lengths = hear(recognizer, waveform, as_features=as_features)
        assert found == wanted
        assert set(lengths) == {320}

    def test_changes_the_length_only_where_such_a_chunk_begins(self, model, waveform):
        recognizer = Recognizer(model)
        wanted, _ = hear(recognizer, waveform)
        rng = np.random.default_rng(2)

        def change():
            if rng.random() < 0.3:
                recognizer.use(Rung("greedy", int(rng.choice([80, 160, 320]))))

        recognizer.use(Rung("greedy", 160))
        found, lengths = hear(recognizer, waveform, change)
        assert found == wanted
        assert set(lengths) == {80, 160, 320}
        starts = np.cumsum([0, *lengths[:-1]])
        assert all(start % length == 0 for start, length in zip(starts, lengths, strict=True))
