"""The beam search in C: the same prefixes in a fraction of the time, which in numpy is that of its calls.

What it does is in `lexicon_search.py`, how in `lexicon_kernels.c`. It reads tables where they lie, mapped or not. It
takes prefixes from where the search in numpy has them and puts them back there, so all else is the same code.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import BundleError, NativeCodeError
from edgeasr.hotwords import HotwordGraph, HotwordModel
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon_search import PrefixSearch, WordGraph, new_record
from edgeasr.native_code import packaged_library
from edgeasr.ngram_tables import NgramTables

# A product and a sum are rounded one after the other, as in numpy.
_FLAGS = ("-ffp-contract=off", "-fno-math-errno")
_FULL = 1  # of the statuses

# What C works in, as numbers of 8 bytes for each prefix, or candidate, that there is room for.
_WHOLE, _PREFIX = 7, 11
_SCRATCH = {"prefixes": _PREFIX, "others": _PREFIX, "candidates": 8, "records": 6, "totals": 1, "slots": 1}
_FIRST_ROOM = 1024  # a power of 2
_FRAMES_AT_ONCE = 16
_MOST_PREFIXES = 1 << 30
_RECORD = Struct("=4q2d")

_DELETE = "delete the .tables in the cache folder, they are made again"

# Arrays that C reads, and as what.
_OF_LEXICON = {
    "phones_next": np.uint64,
    "first_child": np.int32,
    "depth": np.uint8,
    "first_word": np.int32,
    "words": np.uint16,
    "best": np.float32,
}
_OF_NGRAMS = {
    "entries": np.uint32,
    "first_keys": np.int64,
    "followed": np.uint16,
    "first_number": np.int32,
    "histories": np.uint32,
    "prob_levels": np.float32,
    "backoff_levels": np.float32,
}
_OF_PHRASES = {"keys": np.int64, "targets": np.int64, "parents": np.int64, "earned": np.float64, "pending": np.float64}

_size, _double, _float = ctypes.c_size_t, ctypes.c_double, ctypes.c_float


def _pointers(names: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, ctypes.c_void_p) for name in names)


def _sizes(*names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, _size) for name in names)


class _Lexicon(ctypes.Structure):
    _fields_ = (*_pointers((*_OF_LEXICON, "gain")), *_sizes("num_phones", "num_nodes", "num_words"))


class _Ngrams(ctypes.Structure):
    _fields_ = (
        *_pointers(_OF_NGRAMS),
        *_sizes("num_blocks", "num_histories", "num_probs", "num_backoffs", "order"),
    )


class _Phrases(ctypes.Structure):
    _fields_ = (
        *_pointers(_OF_PHRASES),
        *_sizes("num_arcs", "num_states", "num_known"),
        ("scale", _double),
        ("rarest", _float),
    )


class _Limits(ctypes.Structure):
    _fields_ = (
        ("blank_penalty", _double),
        ("token_beam", _double),
        ("log_sure_blank", _double),
        ("least", _double),
        ("max_prefixes", _size),
        ("lm_weight", _float),
    )


class _Graph(ctypes.Structure):
    _fields_ = (("lexicon", _Lexicon), ("ngrams", _Ngrams), ("phrases", _Phrases), ("limits", _Limits))


class _Beam(ctypes.Structure):
    _fields_ = (
        *_pointers(_SCRATCH),
        *_sizes("room", "num_prefixes", "num_candidates", "num_records"),
        ("first_record", ctypes.c_int64),
        ("behind", _double),
    )


def fastest_search(graph: WordGraph) -> PrefixSearch:
    """A search: in C where that can be compiled and the graph is of a language model, in numpy elsewhere.

    errors: BundleError for tables that do not fit each other
    """
    if type(graph) in (WordGraph, HotwordGraph):  # others may say themselves what follows what
        with suppress(NativeCodeError):
            return NativeSearch(graph)
    return PrefixSearch(graph)


class NativeSearch(PrefixSearch):
    """As `PrefixSearch`, of a language model with or without hotwords. Streams share tables, which nothing writes to.

    errors: NativeCodeError where the library cannot be compiled, or tables are not as it reads them; BundleError for
            tables that do not fit each other, and where a frame meets what leads out of them: no frame is taken then
    """

    def __init__(self, graph: WordGraph) -> None:
        self._room = _FIRST_ROOM
        self._library = search_library()
        super().__init__(graph)

    def use(self, graph: WordGraph) -> None:
        super().use(graph)
        self._tables = _graph_of(graph, self._least)

    def accept_frames(self, log_probs: NDArray[np.floating[Any]], frames: Sequence[int]) -> None:
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            numbers = frames[start : start + _FRAMES_AT_ONCE]
            rows = np.ascontiguousarray(log_probs[start : start + _FRAMES_AT_ONCE], np.float64)
            while not self._accept_all(rows, (ctypes.c_int64 * len(numbers))(*numbers)):
                self._room *= 2

    def _accept_all(self, log_probs: NDArray[np.float64], frames: ctypes.Array[ctypes.c_int64]) -> bool:
        """Take frames, or none where there is too little room. returns: whether they were taken"""
        if self.whole.shape[1] > self._room:
            return False
        scratch = np.empty(self._room * sum(_SCRATCH.values()), np.int64)
        beam = self._beam(scratch)
        status = self._library.edgeasr_lexicon_accept(
            ctypes.byref(self._tables), ctypes.byref(beam), log_probs.ctypes.data, frames, len(frames)
        )
        if status == _FULL:
            return False
        if status:
            raise BundleError(f"the tables of the language model are damaged: {_DELETE}")
        # Both places of prefixes take turns.
        last = _prefixes(scratch, self._room)[len(frames) % 2, : beam.num_prefixes]
        self.whole, self.parts = last[:, :_WHOLE].T.copy(), last[:, _WHOLE:].view(np.float64).T.copy()
        records = scratch[_places(self._room)["records"] :][: beam.num_records * _SCRATCH["records"]]
        self.records += map(new_record, _RECORD.iter_unpack(records.data))
        self.behind = beam.behind
        return True

    def _beam(self, scratch: NDArray[np.int64]) -> _Beam:
        """The present prefixes as C has them, written into the scratch, and where all parts of that are."""
        num_prefixes, prefixes = self.whole.shape[1], _prefixes(scratch, self._room)[0]
        prefixes[:num_prefixes, :_WHOLE] = self.whole.T
        prefixes[:num_prefixes, _WHOLE:].view(np.float64)[:] = self.parts.T
        first = scratch.ctypes.data
        return _Beam(
            **{name: first + place * scratch.itemsize for name, place in _places(self._room).items()},
            room=self._room,
            num_prefixes=num_prefixes,
            first_record=len(self.records),
            behind=self.behind,
        )


def _prefixes(scratch: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    return scratch[: 2 * room * _PREFIX].reshape(2, room, _PREFIX)


@cache
def _places(room: int) -> Mapping[str, int]:
    """Where in the scratch each part begins."""
    ends = np.cumsum([room * size for size in _SCRATCH.values()]).tolist()
    return dict(zip(_SCRATCH, (0, *ends), strict=False))


def _graph_of(graph: WordGraph, least: float) -> _Graph:
    """A graph as C reads it, which keeps no array: the graph has to be kept beside it."""
    config, model = graph.config, graph.model
    known = model.model if isinstance(model, HotwordModel) else model
    assert isinstance(known, LanguageModel)
    no_phrases = _Phrases(num_states=1)
    return _Graph(
        lexicon=_lexicon_of(graph),
        ngrams=_ngrams_of(known.ngrams),
        phrases=_phrases_of(model) if isinstance(model, HotwordModel) else no_phrases,
        limits=_Limits(
            blank_penalty=config.blank_penalty,
            token_beam=config.token_beam,
            log_sure_blank=math.log(config.sure_blank),
            least=least,
            max_prefixes=min(config.max_prefixes, _MOST_PREFIXES),
            lm_weight=config.lm_weight,
        ),
    )


def _lexicon_of(graph: WordGraph) -> _Lexicon:
    lexicon, num_nodes = graph.lexicon, len(graph.lexicon)
    shapes = {"first_word": (num_nodes + 1,), "words": lexicon.words.shape}
    return _Lexicon(
        **_addresses(lexicon, _OF_LEXICON, {name: shapes.get(name, (num_nodes,)) for name in _OF_LEXICON}),
        **_addresses(graph, {"gain": np.float32}, {"gain": (num_nodes,)}),
        num_phones=int(lexicon.num_phones),
        num_nodes=num_nodes,
        num_words=len(lexicon.words),
    )


def _ngrams_of(ngrams: NgramTables) -> _Ngrams:
    num_blocks = len(ngrams.first_keys)
    shapes = {
        "entries": (num_blocks, 16),
        "histories": ngrams.histories.shape,
        "prob_levels": ngrams.prob_levels.shape,
        "backoff_levels": ngrams.backoff_levels.shape,
    }
    return _Ngrams(
        **_addresses(ngrams, _OF_NGRAMS, {name: shapes.get(name, (num_blocks,)) for name in _OF_NGRAMS}),
        num_blocks=num_blocks,
        num_histories=len(ngrams.histories),
        num_probs=len(ngrams.prob_levels),
        num_backoffs=len(ngrams.backoff_levels),
        order=ngrams.order,
    )


def _phrases_of(model: HotwordModel) -> _Phrases:
    automaton = model.automaton
    num_arcs, num_states = len(automaton.keys), len(automaton)
    shapes = {name: (num_arcs if name in ("keys", "targets") else num_states,) for name in _OF_PHRASES}
    return _Phrases(
        **_addresses(automaton, _OF_PHRASES, shapes),
        num_arcs=num_arcs,
        num_states=num_states,
        num_known=model.num_known,
        scale=model.scale,
        rarest=model.rarest,
    )


def _addresses(owner: Any, types: Mapping[str, type], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Where arrays lie, by their names.

    errors: BundleError for other shapes; NativeCodeError for what C would have to copy
    """
    found = {}
    for name, kind in types.items():
        array = getattr(owner, name)
        if array.shape != shapes[name]:
            raise BundleError(
                f"got {name} of shape {array.shape} in tables of a language model, wanted {shapes[name]}: {_DELETE}"
            )
        if array.dtype != kind or not array.flags.c_contiguous or not array.flags.aligned:
            raise NativeCodeError(f"got {name} as {array.dtype}, wanted {np.dtype(kind)} in a row")
        found[name] = array.ctypes.data
    return found


@cache
def search_library() -> ctypes.CDLL:
    """errors: NativeCodeError"""
    library = packaged_library("edgeasr", "lexicon_kernels.c", "edgeasr_lexicon_accept", _FLAGS)
    library.edgeasr_lexicon_accept.argtypes = [
        ctypes.POINTER(_Graph),
        ctypes.POINTER(_Beam),
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_int64),
        _size,
    ]
    return library
