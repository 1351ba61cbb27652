"""What a transducer is trained on, made once and kept: training speech as units, sentences said with them, noise."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from edgeasr.errors import ConfigError
from edgeasr.phones import read_dictionary
from edgeasr.train.corpus import Corpus
from edgeasr.train.frame_files import FrameFile, FrameWriter
from edgeasr.train.noise_rows import noise_rows
from edgeasr.train.processes import Observer, Place, Progress
from edgeasr.train.recipe import Recipe
from edgeasr.train.unit_selection import Listener, PoolPass, Script, Speaker, UnitConfig, UnitPool, write_shard

_INPUTS = "inputs.json"


class Prepared(NamedTuple):
    """Files of frames."""

    speech: list[FrameFile]  # passes over training speech
    sentences: list[FrameFile]
    noise: list[FrameFile]  # one, or none


@dataclass(frozen=True)
class Preparation:
    """Speech and text to frames, in the folder of a recipe's run; what is finished there is taken as it is.

    recipe:     of the encoder's model and tokens, with a dictionary; its training speech becomes units
    text:       sentences, one a line
    dictionary: how their words are said
    hours:      of sentences, at least
    noise_hours: of noise without speech, at least
    """

    recipe: Recipe
    text: Path
    dictionary: Path
    hours: float
    noise_hours: float
    units: UnitConfig
    listener: Listener

    def made(self, corpus: Corpus, place: Place, observer: Observer) -> Prepared:
        """Everything, in all processes.

        raises: ConfigError for a folder in which other things are made, a text that cannot be said, or a missing
            dictionary; KeyboardInterrupt when asked to stop
        """
        script, dictionary = Script(self.text, self.units), read_dictionary(self.dictionary)
        if place.leads:
            self._claim()
        place.wait()
        passes = self._passes(corpus, place, observer)
        noise = self._noise(corpus, place, observer)
        place.wait()
        loaded = [FrameFile.load(path) for path in passes]
        pool = UnitPool(loaded, self.units.longest_phones[1])
        observer.report(f"units of {len(pool.phones):,} phones")
        speaker = Speaker(pool, self.listener, self.recipe.tokenizer, dictionary, self.units)
        return Prepared(
            loaded, self._shards(script, speaker, place, observer), [FrameFile.load(path) for path in noise]
        )

    def _claim(self) -> None:
        """Remember what everything is made of. raises: ConfigError where it was something else"""
        made_of = json.loads(json.dumps(self._made_of()))
        path = self.recipe.directory / _INPUTS
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".partial")
            partial.write_text(json.dumps(made_of, indent=1), encoding="utf-8")
            partial.replace(path)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read {path}: {error}: choose another directory") from error
        if before != made_of:
            other = sorted(key for key in made_of if not isinstance(before, dict) or before.get(key) != made_of[key])
            raise ConfigError(
                f"{path.parent} has frames of another {', '.join(other) or 'kind'}: take back the change, or choose "
                "another directory"
            )

    def _made_of(self) -> Mapping[str, Any]:
        weights = hashlib.sha256()
        for name, tensor in sorted(self.listener.encoder.state_dict().items()):
            weights.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        data = self.recipe.data.to_dict()
        return {
            "checkpoint": weights.hexdigest(),
            "text": hashlib.sha256(self.text.read_bytes()).hexdigest(),
            "dictionary": hashlib.sha256(self.dictionary.read_bytes()).hexdigest(),
            "training speech": {key: data[key] for key in ("train", "noise", "dictionary", "weights")},
            "augmentation": self.recipe.augment.to_dict(),
            "settings of units": self.units.to_dict(),
        }

    def _passes(self, corpus: Corpus, place: Place, observer: Observer) -> Sequence[Path]:
        paths = [self.recipe.directory / "speech" / f"pass-{i}.safetensors" for i in range(self.units.passes)]
        for number, path in list(enumerate(paths))[place.rank :: place.world]:
            if not path.exists():
                self._write_pass(path, number, corpus, observer)
        return paths

    def _write_pass(self, path: Path, number: int, corpus: Corpus, observer: Observer) -> None:
        augment, seed = self.recipe.augment, self.units.seed
        with FrameWriter(path) as writer:
            one = PoolPass(self.listener, augment.vocal_tract, writer)
            # The same in any number of processes.
            batches = replace(corpus.plan, batch_s=self.recipe.data.batch_s).epoch(number, short_first=False)
            for done, rows in enumerate(batches):
                _go_on(observer)
                one.hear(corpus.collate(rows, (seed, number, done)), np.random.default_rng([seed, number, done]))
                observer.watch(Progress("hearing", done + 1, len(batches)))
            one.finish()
        hours = writer.num_frames * self.listener.config.frame_s / 3600
        observer.report(f"pass {number + 1} over the speech: {hours:.2f} h, {one.left_out} utterances left out")

    def _noise(self, corpus: Corpus, place: Place, observer: Observer) -> list[Path]:
        """The process whose turn it is after the passes hears it."""
        path = self.recipe.directory / "noise" / f"{self.noise_hours:g}-h.safetensors"
        if self.noise_hours and place.rank == self.units.passes % place.world and not path.exists():
            self._write_noise(path, corpus, observer)
        return [path] if self.noise_hours else []

    def _write_noise(self, path: Path, corpus: Corpus, observer: Observer) -> None:
        augment = corpus.collate.augment
        assert augment is not None
        wanted = math.ceil(self.noise_hours * 3600 / self.listener.config.frame_s)
        with FrameWriter(path) as writer:
            for row in noise_rows(self.listener, augment, self.units.seed):
                _go_on(observer)
                writer.add(row)
                observer.watch(Progress("hearing noise", min(writer.num_frames, wanted), wanted))
                if writer.num_frames >= wanted:
                    break
            writer.finish(self.listener.config.encoder.d_model)

    def _shards(self, script: Script, speaker: Speaker, place: Place, observer: Observer) -> list[FrameFile]:
        """Rounds of one shard a process, until the hours are there."""
        wanted = self.hours * 3600 / self.listener.config.frame_s
        frames, files = 0.0, []
        for first in count(0, place.world):
            paths = [self._shard_path(first + i) for i in range(place.world)]
            mine = paths[place.rank]
            _go_on(observer)
            if not mine.exists():
                write_shard(mine, first + place.rank, script, speaker)
            place.wait()
            files += [FrameFile.load(path) for path in paths]
            # Processes agree on the end, whatever else comes into the folder meanwhile.
            total = torch.tensor(float(sum(len(file.labels) for file in files[-place.world :])))
            if not total:
                raise ConfigError(
                    f"got a text of which no sentence can be said, {self.text}, wanted words of the dictionary "
                    f"{self.dictionary}: look at both"
                )
            frames += float(total)
            hours = frames * self.listener.config.frame_s / 3600
            observer.report(f"{hours:.2f} of {self.hours:g} h of sentences")
            observer.watch(Progress("saying sentences", min(int(frames), int(wanted)), int(wanted)))
            if frames >= wanted:
                break
        return [file for file in files if len(file.labels)]

    def _shard_path(self, number: int) -> Path:
        return self.recipe.directory / "sentences" / f"shard-{number:05d}.safetensors"


def _go_on(observer: Observer) -> None:
    if observer.stop():
        raise KeyboardInterrupt
