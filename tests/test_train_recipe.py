import dataclasses
from pathlib import Path

import pytest

from edgeasr.config import PRESETS
from edgeasr.errors import ConfigError
from edgeasr.phones import PHONES
from edgeasr.train.recipe import AugmentConfig, DataConfig, OptimizerConfig, Recipe, RunConfig

LEAST = '[data]\ntrain = ["train.jsonl"]\n'
DATA = {"train": ("train.jsonl",)}


def load(folder: Path, text: str) -> Recipe:
    path = folder / "some.toml"
    path.write_text(text, "utf-8")
    return Recipe.load(path)


def refusal(folder: Path, text: str) -> str:
    """What is wrong with a recipe, in one line that begins with its path."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'some.toml'}: ")
    return message.removeprefix(f"{folder / 'some.toml'}: ")


def test_the_least_recipe_is_the_tiny_model_with_defaults(tmp_path):
    recipe = load(tmp_path, LEAST)
    assert recipe.model.encoder == PRESETS["tiny"]
    assert recipe.data == DataConfig(train=("train.jsonl",))
    assert (recipe.augment, recipe.optimizer, recipe.run) == (AugmentConfig(), OptimizerConfig(), RunConfig())


def test_every_table_is_read(tmp_path):
    recipe = load(
        tmp_path,
        """
        [model]
        preset = "nano"
        dropout = 0.2
        summary_strides = [50]
        [features]
        num_mels = 40
        [data]
        train = ["a.jsonl", "b.jsonl"]
        dev = ["dev.jsonl"]
        weights = { "audio/x/" = 0, "audio/y/" = 0.5 }
        sources = [{ name = "readers", licence = "CC0", hours = 3.5 }]
        [augment]
        speed = [1, 1]
        codec = 0.5
        [optimizer]
        steps = 100
        warmup_steps = 10
        bf16 = false
        [run]
        processes = 2
        chunk_frames = [4, 8]
        """,
    )
    assert recipe.model.encoder == dataclasses.replace(PRESETS["nano"], dropout=0.2, summary_strides=(50,))
    assert recipe.model.features.num_mels == 40
    assert recipe.data.train == ("a.jsonl", "b.jsonl")
    assert recipe.data.weights == {"audio/x/": 0, "audio/y/": 0.5}
    assert recipe.data.sources == ({"name": "readers", "licence": "CC0", "hours": 3.5},)
    assert (recipe.augment.speed, recipe.augment.codec) == ((1, 1), 0.5)
    assert (recipe.optimizer.steps, recipe.optimizer.warmup_steps, recipe.optimizer.bf16) == (100, 10, False)
    assert (recipe.run.processes, recipe.run.chunk_frames) == (2, (4, 8))


def test_pieces_make_the_vocabulary(tmp_path):
    path = tmp_path / "pieces.tokens"
    path.write_text(" a\n \na\n")
    recipe = load(tmp_path, LEAST + f'tokens = "{path}"')
    assert (recipe.model.vocabulary_size, recipe.tokenizer.tokens[1]) == (4, " a")
    assert load(tmp_path, LEAST).model.vocabulary_size == 29


def test_a_dictionary_gives_the_model_phones(tmp_path):
    recipe = load(tmp_path, LEAST + 'dictionary = "words.dict"')
    assert recipe.model.phone_vocabulary_size == len(PHONES)
    assert load(tmp_path, LEAST).model.phone_vocabulary_size == 0


def test_paths_start_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    recipe = load(tmp_path / "recipes", LEAST + '[run]\ndirectory = "out"\n')
    assert recipe.resolve(recipe.data.train) == [tmp_path / "train.jsonl"]
    assert recipe.resolve(("/data/x.jsonl",)) == [Path("/data/x.jsonl")]
    assert recipe.directory == tmp_path / "out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dat]\ntrain = []", "unknown table [dat]: known tables are augment, data, features, model, optimizer, run"),
        ("steps = 5\n" + LEAST, "unknown table [steps]"),
        ("run = 5\n" + LEAST, "run is 5: wanted a table, [run]"),
        (
            LEAST + "[run]\nstep = 1",
            "[run] unknown key 'step' in RunConfig: known keys are chunk_frames, device, directory",
        ),
        (LEAST + "[model]\nwidth = 1", "[model] unknown key 'width' in EncoderConfig"),
        (LEAST + '[model]\npreset = "huge"', "[model] unknown preset 'huge': known presets are nano, tiny, small"),
        (LEAST + "[model]\npreset = [1]", "[model] unknown preset '[1]'"),
        (LEAST + "[model]\nd_model = 7", "[model] d_model 7 must be a multiple of twice num_heads (4)"),
        (LEAST + "[features]\nnum_mels = 0", "[features] num_mels is 0: it must be positive"),
        (LEAST + '[optimizer]\nsteps = "many"', "[optimizer] steps in OptimizerConfig is 'many': wanted int"),
        (LEAST + "[optimizer]\nbf16 = 1", "[optimizer] bf16 in OptimizerConfig is 1: wanted bool"),
        (LEAST + "[run]\nchunk_frames = [4, 101]", "run.chunk_frames has 101: it must be at most the first of"),
        ("[data]\ntrain = []", "[data] train is empty: name at least one manifest"),
        ("", "[data] train is empty: name at least one manifest"),
    ],
    ids=range(14),
)
def test_a_recipe_that_says_nonsense_is_refused(tmp_path, text, message):
    assert refusal(tmp_path, text).startswith(message)


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path):
    for path, reason in ((tmp_path / "missing.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot read the recipe {path}: .*{reason}.*: give a TOML file"):
            Recipe.load(path)
    with pytest.raises(ConfigError, match=r"cannot read the recipe .*some\.toml: .* \(at line 2, column 5\)"):
        load(tmp_path, "[data]\na = =\n")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_s": 10.0}, "batch_s is 10.0: it must be at least max_duration_s (33.0)"),
        ({"max_duration_s": 0.0}, "max_duration_s is 0.0: it must be positive"),
        ({"weights": {"x": 1.5}}, "weights.'x' is 1.5: it must be a number in [0, 1]"),
        ({"weights": {"x": "half"}}, "weights.'x' is 'half': it must be a number in [0, 1]"),
        ({"sources": ({"name": "readers"},)}, "the source {'name': 'readers'} must have a name and a licence"),
        ({"sources": ({"name": "readers", "licence": ""},)}, "must have a name and a licence"),
        ({"dev": ("a/dev.jsonl", "b/dev.jsonl")}, "dev manifests are told apart by name, got dev, dev: rename"),
    ],
)
def test_impossible_data_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        DataConfig.from_dict({**DATA, **values})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (AugmentConfig, {"noise": 1.5}, "noise is 1.5: it must be a probability, in [0, 1]"),
        (AugmentConfig, {"codec": -0.1}, "codec is -0.1: it must be a probability"),
        (AugmentConfig, {"speed": [1.2, 0.9]}, "speed is from 1.2 to 0.9: give the lower number first"),
        (AugmentConfig, {"speed": [0.0, 1.0]}, "speed begins at 0.0: it must be 0.1 or more"),
        (AugmentConfig, {"speed": [1.0]}, "speed in AugmentConfig is (1.0,)"),
        (AugmentConfig, {"reverb_s": [0.0, 1.0]}, "reverb_s begins at 0.0: it must be 0.01 or more"),
        (AugmentConfig, {"time_masks": -1}, "time_masks is -1: it must not be negative"),
        (AugmentConfig, {"time_mask_every_frames": 0}, "time_mask_every_frames is 0: it must be positive"),
        (AugmentConfig, {"vocal_tract": [1.1, 0.9]}, "vocal_tract is from 1.1 to 0.9: give the lower number first"),
        (AugmentConfig, {"vocal_tract": [0.0, 1.0]}, "vocal_tract begins at 0.0: it must be 0.5 or more"),
        (OptimizerConfig, {"consistency_weight": -0.1}, "consistency_weight is -0.1: it must not be negative"),
        (OptimizerConfig, {"warmup_steps": 0}, "warmup_steps is 0, steps 20000: wanted 0 < warmup_steps < steps"),
        (OptimizerConfig, {"steps": 800}, "warmup_steps is 800, steps 800: wanted 0 < warmup_steps < steps"),
        (OptimizerConfig, {"peak_rate": 0.0}, "peak_rate is 0.0: it must be positive"),
        (OptimizerConfig, {"ema_decay": 1.0}, "ema_decay is 1.0: it must be in [0, 1)"),
        (OptimizerConfig, {"lower_ctc_weight": 1}, "lower_ctc_weight is 1: it must be in [0, 1)"),
        (OptimizerConfig, {"crf_weight": 1.1}, "crf_weight is 1.1: it must be in [0, 1]"),
        (OptimizerConfig, {"weight_decay": -1}, "weight_decay is -1: it must not be negative"),
        (RunConfig, {"processes": 0}, "processes is 0: it must be positive"),
        (RunConfig, {"save_every": 0}, "save_every is 0: it must be positive"),
        (RunConfig, {"directory": ""}, "directory is empty: name a folder for what the run writes"),
        (RunConfig, {"seed": -1}, "seed is -1: it must not be negative"),
        (RunConfig, {"chunk_frames": [4, 0]}, "chunk_frames is (4, 0): each must be positive"),
    ],
)
def test_impossible_values_are_refused(config, values, message):
    with pytest.raises(ConfigError) as caught:
        config.from_dict(values)
    assert message in str(caught.value)


@pytest.mark.parametrize("data", ["", 'dictionary = "words.dict"', 'phone_graph = "phones.npz"'])
def test_a_sequence_criterion_needs_pronunciations_and_a_graph(tmp_path, data):
    wrong = refusal(tmp_path, f"{LEAST}{data}\n[optimizer]\ncrf_weight = 0.9\n")
    assert wrong == "optimizer.crf_weight is 0.9: it needs data.dictionary and data.phone_graph"


def test_options_of_the_command_line_take_the_place_of_the_recipe_s(tmp_path):
    recipe = load(tmp_path, LEAST)
    assert recipe.with_options() == recipe
    changed = recipe.with_options(processes=3, steps=1000)
    assert (changed.run.processes, changed.optimizer.steps, changed.optimizer.warmup_steps) == (3, 1000, 500)
    assert recipe.with_options(steps=4000).optimizer.warmup_steps == 800
    assert dataclasses.replace(changed, run=recipe.run, optimizer=recipe.optimizer) == recipe
    with pytest.raises(ConfigError, match="processes is 0"):
        recipe.with_options(processes=0)


def test_the_shipped_recipe_trains_the_default_model(repository):
    recipe = Recipe.load(repository / "edgeasr" / "recipes" / "tiny-en.toml")
    tiny = PRESETS["tiny"]
    same = {"dropout": tiny.dropout, "merge_similarity": tiny.merge_similarity}
    assert dataclasses.replace(recipe.model.encoder, **same) == tiny
    trained_on, judged_by = set(recipe.data.train), set(recipe.data.dev)
    assert len(judged_by) == 2
    assert not trained_on & judged_by


def test_the_recipe_of_sequences_goes_on_where_the_other_ends(repository):
    first, second = (
        Recipe.load(repository / "edgeasr" / "recipes" / f"{name}.toml") for name in ("tiny-en", "tiny-en-sequences")
    )
    assert second.model == first.model
    assert second.tokenizer.tokens == first.tokenizer.tokens
    assert (second.data.train, second.data.dev) == (first.data.train, first.data.dev)
    assert second.data.sources == first.data.sources
    assert (first.optimizer.crf_weight, second.optimizer.crf_weight) == (0.0, 0.9)
    assert second.directory != first.directory


@pytest.mark.parametrize("name", ["librispeech-960", "common-voice"])
def test_the_recipes_of_large_corpora_are_valid(repository, name):
    recipe = Recipe.load(repository / "edgeasr" / "recipes" / f"{name}.toml")
    data = recipe.data
    assert (data.train, data.session_s, recipe.run.device) == ((), 0.0, "cuda")
    # On eight GPUs a process still draws its batch from a buffer of many.
    assert data.buffer_s > 10 * data.batch_s / 8 > 10 * data.max_duration_s / 8
    assert recipe.run.loaders > 0
    assert recipe.model.phone_vocabulary_size == len(PHONES)
    assert {source["licence"] for source in data.sources} <= {"CC-BY-4.0", "CC0-1.0", "BSD-2-Clause"}
    preparations = (repository / "docs" / "training.md").read_text()
    for path in (data.dictionary, *data.shards):
        assert path in preparations


def test_the_recipe_for_a_folder_goes_on_from_the_shipped_model(repository):
    torch = pytest.importorskip("torch", reason="training needs the extra `train`")
    from edgeasr.train.checkpoint import Checkpoint, default_checkpoint
    from edgeasr.train.loop import Trainer

    recipe = Recipe.load(repository / "edgeasr" / "recipes" / "folder.toml")
    shipped = default_checkpoint()
    assert recipe.tokenizer.tokens == Checkpoint.load(shipped).tokens
    trainer = Trainer(recipe)
    trainer._take_weights(shipped)
    weights = Checkpoint.load(shipped).weights
    assert all(torch.equal(trainer.encoder.state_dict()[name], tensor.float()) for name, tensor in weights.items())
    preparations = (repository / "docs" / "training.md").read_text()
    assert all(path in preparations for path in (*recipe.data.train, *recipe.data.dev, recipe.data.dictionary))
