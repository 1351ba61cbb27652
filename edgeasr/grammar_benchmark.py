"""How well grammars are heard, by synthetic voices: sentences of a grammar, other speech, and what it all costs."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgeasr.audio import FileSource
from edgeasr.errors import ConfigError
from edgeasr.grammar import Grammar
from edgeasr.grammar_automaton import WordAutomaton
from edgeasr.grammar_network import Network
from edgeasr.grammar_parser import parse_grammar
from edgeasr.hotwords import Hotword
from edgeasr.language_model import LanguageModel
from edgeasr.manifest import Utterance
from edgeasr.measurement import BLOCK_MS, Heard, hear
from edgeasr.model import AcousticModel
from edgeasr.own_words import OwnWords, grammar_graph, word_graph
from edgeasr.recognizer import Recognizer

_SEED = 5
_FILES = files("edgeasr").joinpath("grammars")


@dataclass(frozen=True)
class Voice:
    """A synthetic voice. trained_on: whether its speech is in the training data of the bundled model"""

    program: str
    name: str
    trained_on: bool = False

    def __str__(self) -> str:
        return f"{self.program} {self.name}"

    def speak(self, text: str, path: Path) -> None:
        """Write a recording."""
        to = str(path)
        said = ["-t", text, "-o", to] if self.program == "flite" else ["-s", "150", "-w", to, text]
        option = "-voice" if self.program == "flite" else "-v"
        subprocess.run([self.program, option, self.name, *said], check=True, stdout=subprocess.DEVNULL)


VOICES = (
    *(Voice("flite", name) for name in ("kal", "kal16")),
    *(Voice("flite", name, trained_on=True) for name in ("slt", "rms", "awb")),
    *(Voice("espeak-ng", name) for name in ("en-us", "en-us+f2", "en-us+m3", "en-gb", "en-gb-scotland+f4")),
)

_OPENINGS = (
    *("i would like to order", "we would like to have", "can i get", "could you bring me", "please give me"),
    *("i want to buy", "let me have", "may we have", "i will take", "my friend would like", "the children want"),
    *("please send us", "we need", "i am going to have", "bring to the table", "put on my bill", "for the lady"),
    *("for the gentleman", "add to my order", "for lunch i would like"),
)
_CLOSINGS = ("please", "to take away", "for here", "as soon as possible", "and the bill")

# Of other speech the first are as people talk, the others begin or end as commands do.
OTHER_SENTENCES = (
    "the train to the coast was late again this morning",
    "she had never seen so many people in one place",
    "i think we should talk about it after dinner",
    "his brother bought a small farm near the river",
    "there was nothing left of the old castle",
    "do you remember the name of that little restaurant",
    "the children were playing in the snow all day",
    "nobody knew what had happened to the captain",
    "it took them almost three weeks to reach the border",
    "my grandfather used to tell the same story every year",
    "the doctor said that he would be fine in a few days",
    "we walked along the beach until it was dark",
    "prices have gone up a good deal since last winter",
    "the letter arrived on a cold day in november",
    "he could not believe what he had just heard",
    "they are building a new bridge over the railway",
    "what a strange thing to say to a friend",
    "i would rather stay here and finish my book",
    "the wind blew so hard that the roof came off",
    "yes of course",
    "turn left at the next corner",
    "set the table for dinner",
    "play chess with me after school",
    "call me when you get to the station",
    "open the letter from your uncle",
    "what time does the last bus leave",
    "start a fire in the old stove",
    "switch places with the man in the hall",
    "turn off the engine of the boat",
    "good morning ladies and gentlemen",
)


def home_grammar() -> Grammar:
    """200 commands."""
    return parse_grammar(_FILES.joinpath("home.jsgf").read_text(encoding="utf-8"), "home.jsgf")


def orders_grammar() -> Grammar:
    """A hundred long alternatives, each with a size, a kind and an amount in any order."""
    slots = " | ".join(" ".join(order) for order in itertools.permutations(("<size>", "<kind>", "<amount>")))
    alternatives = [f"{opening} ({slots}) {closing}" for opening in _OPENINGS for closing in _CLOSINGS]
    text = f"""#JSGF V1.0;
grammar orders;
<size> = small {{small}} | medium {{medium}} | large {{large}} | extra large {{huge}} | family size {{family}};
<kind> = (cheese pizza | vegetable pizza | chicken salad | tomato soup | apple pie | orange juice | green tea
       | black coffee | chocolate cake | fried potatoes) {{kind}};
<amount> = (one | two | three | four | five | six | half a dozen | a dozen) {{amount}};
public <order> = {" | ".join(alternatives)};
"""
    return parse_grammar(text, "orders")


def many_rules_grammar(count: int) -> Grammar:
    """`count` public rules, for the time it takes to compile them."""
    words = list(home_grammar().words)
    names = [" ".join(words[(i * step + 7) % len(words)] for step in (1, 3, 5, 11)) for i in range(count)]
    rules = [
        f"public <r{i}> = [please] {name} (now | later {{later}}) [<r{(i + 1) % count}_tail>];\n"
        f"<r{i}_tail> = and {name}+ {{r{i}}};\n"
        for i, name in enumerate(names)
    ]
    return parse_grammar(f"#JSGF V1.0;\ngrammar many;\n{''.join(rules)}", "many rules")


def sentences(grammar: Grammar) -> Iterator[str]:
    """All sentences of a grammar; they have no end where it repeats something."""
    automaton = WordAutomaton.of(Network(grammar), grammar.source)
    waiting: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    while waiting:
        state, words = waiting.pop()
        if automaton.finals[state] > float("-inf"):
            yield " ".join(words)
        waiting += [(arc.target, (*words, arc.word)) for arc in reversed(automaton.arcs[state])]


def drawn_sentences(grammar: Grammar, count: int) -> list[str]:
    """Sentences drawn at random, each way as likely as another at every word."""
    automaton, draw, drawn = WordAutomaton.of(Network(grammar), grammar.source), random.Random(_SEED), []
    for _ in range(count):
        state, words = 0, []
        while arcs := automaton.arcs[state]:
            arc = draw.choice(arcs)
            state = arc.target
            words.append(arc.word)
        drawn.append(" ".join(words))
    return drawn


def installed_voices() -> tuple[Voice, ...]:
    """Errors: ConfigError where there is none"""
    voices = tuple(voice for voice in VOICES if shutil.which(voice.program))
    if not voices:
        raise ConfigError("neither flite nor espeak-ng is installed: apt-get install flite espeak-ng")
    return voices


@dataclass
class Tally:
    """What became of recordings, by who spoke them.

    spoken: of each voice how many; right: those whose text was heard, or for other speech was rejected
    """

    spoken: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    audio_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, who: str, wanted: str, said: str, heard: Heard) -> None:
        """wanted: the text that is right, empty where it is right to reject what was said"""
        self.spoken[who] += 1
        self.right[who] += heard.text == wanted
        if heard.text != wanted:
            self.wrong.append((who, said, heard.text))
        self.audio_s += heard.audio_s
        self.cpu_s += heard.cpu_s

    def report(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {
            "utterances": self.spoken.total(),
            "right": self.right.total(),
            "share": self.right.total() / max(1, self.spoken.total()),
            "by_voice": {who: self.right[who] / count for who, count in self.spoken.items()},
            "audio_s": round(self.audio_s, 1),
            "rtf": self.cpu_s / self.audio_s if self.audio_s else None,
            "wrong": [dict(zip(("voice", "said", "heard"), one, strict=True)) for one in self.wrong],
        }


def hear_spoken(
    recognizer: Recognizer,
    spoken: Sequence[tuple[Voice, str]],
    folder: Path,
    *,
    rejected: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Sentences spoken and heard, each as a stream of its own.

    folder:   where recordings are put, and taken from
    rejected: whether it is right to reject them
    """
    tally = Tally()
    for number, (voice, text) in enumerate(spoken, 1):
        path = folder / f"{voice} {text}.wav"
        if not path.exists():
            voice.speak(text, path)
        with FileSource(path, BLOCK_MS) as source:
            tally.add(str(voice), "" if rejected else text, text, hear(recognizer, source))
        progress(f"{number} of {len(spoken)} recordings, {len(tally.wrong)} wrong")
    return tally


def hear_recorded(
    recognizer: Recognizer, speech: Sequence[Utterance], progress: Callable[[str], None] = lambda _: None
) -> Tally:
    """Recordings of speech that is right to reject, each as a stream of its own. Errors: AudioFormatError"""
    tally = Tally()
    for number, utterance in enumerate(speech, 1):
        with FileSource(utterance.path, BLOCK_MS) as source:
            tally.add("recordings", "", utterance.text, hear(recognizer, source))
        progress(f"{number} of {len(speech)} recordings, {len(tally.wrong)} wrong")
    return tally


def shared_out(texts: Sequence[str], voices: Sequence[Voice], count: int) -> list[tuple[Voice, str]]:
    """`count` of the texts for each voice, as many different ones as possible."""
    each = itertools.cycle(texts)
    return [(voice, next(each)) for voice in voices for _ in range(count)]


def compile_s(model: AcousticModel, grammar: Callable[[], Grammar]) -> float:
    """Processor time from a grammar's text to its graph, in seconds."""
    _ = model.word_graph
    began_s = time.process_time()
    grammar_graph(model, OwnWords(grammar()))
    return time.process_time() - began_s


def hotwords_s(model: AcousticModel, count: int) -> float:
    """Processor time of making so many hotwords, each of two words of the model's own, ready, in seconds.

    errors: BundleError for a model without words
    """
    graph = model.word_graph
    words = graph.model.words if graph and isinstance(graph.model, LanguageModel) else ()
    hotwords = [Hotword(f"{words[2 * i]} {words[2 * i + 1]}") for i in range(min(count, len(words) // 2))]
    began_s = time.process_time()
    word_graph(model, None, OwnWords(hotwords=hotwords))
    return time.process_time() - began_s
