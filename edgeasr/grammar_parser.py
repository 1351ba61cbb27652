"""JSGF 1.0 to a `Grammar`: the JSpeech Grammar Format (W3C Note, 2000-06-05).

Not of it: imports, and rules of other grammars. Beyond it: operators and tags may follow one another: `word* {tag}`.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeasr.errors import GrammarError
from edgeasr.grammar import (
    Alternatives,
    Expansion,
    Grammar,
    Optional,
    Place,
    Repeat,
    Rule,
    RuleReference,
    Sequence,
    Tagged,
    Token,
)
from edgeasr.tokenizer import normalize_text

_HEADER = re.compile(r"#JSGF[ \t]+V(?P<version>[\d.]+)(?:[ \t]+(?P<encoding>[^\s;]+))?[^;\n]*;")
_SYMBOL = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<weight>/[^/*\n][^/\n]*/)
    |(?P<tag>\{(?:\\.|[^\\}])*\})
    |(?P<name><[^<>\n]*>)
    |(?P<quoted>"(?:\\.|[^"\\])*")
    |(?P<mark>[;=|*+()\[\]])
    |(?P<word>[^\s;=|*+<>()\[\]{}/"]+)""",
    re.VERBOSE | re.DOTALL,
)
_UNCLOSED = {"{": "}", "<": ">", '"': '"', "/": "/ or */"}
_CLOSING = {"(": ")", "[": "]"}
_WEIGHT = re.compile(r"/\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)[fF]?\s*/")
_DEEPEST = 50
_NULL, _VOID = Sequence(()), Alternatives((), ())


class _Symbol(NamedTuple):
    """kind: the group of _SYMBOL, `end` after the last; text: as it is written"""

    kind: str
    text: str
    place: Place

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else self.text if len(self.text) < 30 else f"{self.text[:27]}..."


def read_grammar(path: str | Path) -> Grammar:
    """The grammar of a file. Errors: GrammarError for one that cannot be read or is not JSGF, with line and column"""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise GrammarError(f"cannot read the grammar {path}: {error.strerror or error}: check the path") from error
    return parse_grammar(_decoded(content, str(path)), str(path))


def parse_grammar(text: str, source: str = "the grammar") -> Grammar:
    """The grammar of a text. source: what errors call it; errors: GrammarError, with line and column"""
    header = _HEADER.match(text)
    if header is None or header["version"] not in ("1.0", "1"):
        found = text.splitlines()[0][:40] if text.strip() else ""
        raise GrammarError(f"{source}, line 1: got {found!r}, wanted #JSGF V1.0; as the first line")
    return _Parser(text, header.end(), source).grammar()


def _decoded(content: bytes, source: str) -> str:
    """The text, in the encoding that its header names, UTF-8 where it names none."""
    content = content.removeprefix(codecs.BOM_UTF8)
    header = _HEADER.match(content[:200].decode("latin-1"))
    encoding = (header and header["encoding"]) or "utf-8"
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise GrammarError(f"{source}, line 1: there is no encoding {encoding}: save the file in UTF-8") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise GrammarError(
            f"{source}, line {line}: the bytes are not {encoding}: save the file in it, or name its own after V1.0"
        ) from error


class _Parser:
    """Recursive descent, a symbol ahead."""

    def __init__(self, text: str, start: int, source: str) -> None:
        self._source = source
        self._symbols = self._scanned(text, start)
        self._next = next(self._symbols)
        self._depth = 0
        self._name = ""

    def grammar(self) -> Grammar:
        self._name = self._header_name()
        rules: dict[str, Rule] = {}
        while self._next.kind != "end":
            rule = self._rule()
            if (first := rules.get(rule.name)) is not None:
                raise self._error(rule.place, f"<{rule.name}> is there already, at {first.place}: rename one")
            rules[rule.name] = rule
        return Grammar(self._name, rules, self._source)

    def _scanned(self, text: str, start: int) -> Iterator[_Symbol]:
        line, line_start = text.count("\n", 0, start) + 1, text.rfind("\n", 0, start) + 1
        while start < len(text):
            place = Place(line, start - line_start + 1)
            match = _SYMBOL.match(text, start)
            if match is None:
                closing = _UNCLOSED.get(text[start])
                raise self._error(place, f"{text[start]} is not closed: wanted {closing}" if closing else "got }")
            if match.lastgroup != "space":
                yield _Symbol(str(match.lastgroup), match.group(), place)
            if newlines := match.group().count("\n"):
                line, line_start = line + newlines, text.rfind("\n", 0, match.end()) + 1
            start = match.end()
        end = _Symbol("end", "", Place(line, start - line_start + 1))
        while True:
            yield end

    def _header_name(self) -> str:
        if self._next.text != "grammar":
            raise self._error(self._next.place, f"got {self._next}, wanted `grammar NAME;` after the first line")
        self._take()
        name = self._wanted("word", "the grammar's name").text
        self._mark(";", "after the grammar's name")
        if self._next.text == "import":
            raise self._error(
                self._next.place, "rules of other grammars cannot be imported: copy those that you want into this file"
            )
        return name

    def _rule(self) -> Rule:
        is_public = self._next.text == "public"
        if is_public:
            self._take()
        if self._next.kind != "name":
            raise self._error(self._next.place, f"got {self._next}, wanted a rule: [public] <name> = ... ;")
        symbol = self._take()
        name = self._rule_name(symbol)
        if name in ("NULL", "VOID"):
            raise self._error(symbol.place, f"<{name}> means something already: choose another name")
        self._mark("=", f"after <{name}>")
        expansion = self._alternatives()
        self._mark(";", f"at the end of <{name}>")
        return Rule(name, is_public, expansion, symbol.place)

    def _rule_name(self, symbol: _Symbol) -> str:
        name = symbol.text[1:-1].strip()
        if not name or re.search(r"\s", name):
            raise self._error(symbol.place, f"got {symbol}, wanted a name without spaces in < >")
        own, _, local = name.rpartition(".")
        if own and own not in (self._name, self._name.rpartition(".")[2]):
            raise self._error(symbol.place, f"{symbol} is a rule of another grammar: copy it into this file")
        return local

    def _alternatives(self) -> Expansion:
        place = self._next.place
        parts, weights = [], []
        while True:
            weights.append(self._weight())
            parts.append(self._sequence())
            if self._next.text != "|":
                break
            self._take()
        given = [weight for weight in weights if weight is not None]
        if given and len(given) < len(weights):
            raise self._error(
                place, f"{len(given)} of {len(weights)} alternatives have a weight: give all one, or none"
            )
        if given and not any(given):
            raise self._error(place, "all weights are 0: make one greater, or use <VOID>")
        if len(parts) == 1:
            return parts[0]
        return Alternatives(tuple(parts), tuple(given) or (1.0,) * len(parts))

    def _weight(self) -> float | None:
        if self._next.kind != "weight":
            return None
        symbol = self._take()
        match = _WEIGHT.fullmatch(symbol.text)
        if match is None or not math.isfinite(weight := float(match[1])):
            raise self._error(symbol.place, f"got the weight {symbol}, wanted a number from 0 on, as in /0.5/")
        return weight

    def _sequence(self) -> Expansion:
        parts = []
        while (part := self._item()) is not None:
            parts.append(part)
        if self._next.kind == "weight":
            raise self._error(
                self._next.place, f"{self._next} weighs no alternative: put it behind | or before the first"
            )
        if not parts:
            raise self._error(self._next.place, f"got {self._next}, wanted words or <NULL>")
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _item(self) -> Expansion | None:
        """A word, rule or group with its operators; None where none begins."""
        symbol = self._next
        if symbol.text in _CLOSING and symbol.kind == "mark":
            part = self._group()
        elif symbol.kind in ("word", "quoted"):
            part = self._words(self._take())
        elif symbol.kind == "name":
            name = self._rule_name(self._take())
            part = {"NULL": _NULL, "VOID": _VOID}.get(name) or RuleReference(name, symbol.place)
        else:
            return None
        while self._next.text in ("*", "+") or self._next.kind == "tag":
            operator = self._take()
            if operator.kind == "tag":
                part = Tagged(part, re.sub(r"\\(.)", r"\1", operator.text[1:-1], flags=re.DOTALL).strip())
            else:
                part = Repeat(part, is_required=operator.text == "+")
        return part

    def _group(self) -> Expansion:
        opening = self._take()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(opening.place, f"more than {_DEEPEST} groups in each other: make rules of some")
        part = self._alternatives()
        self._depth -= 1
        self._mark(_CLOSING[opening.text], f"for the {opening.text} at {opening.place}")
        return Optional(part) if opening.text == "[" else part

    def _words(self, symbol: _Symbol) -> Expansion:
        """What is said for a token: as it is scored, so in lower case, and two words where it has a hyphen."""
        text = symbol.text
        if symbol.kind == "quoted":
            text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        words = normalize_text(text).split()
        if not any(map(str.isalpha, "".join(words))) or re.search(r"\d", text):
            raise self._error(symbol.place, f"got {symbol}, wanted words as they are said: write numbers and signs out")
        parts = tuple(Token(word, symbol.place) for word in words)
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def _take(self) -> _Symbol:
        symbol, self._next = self._next, next(self._symbols)
        return symbol

    def _wanted(self, kind: str, what: str) -> _Symbol:
        if self._next.kind != kind:
            raise self._error(self._next.place, f"got {self._next}, wanted {what}")
        return self._take()

    def _mark(self, mark: str, where: str) -> None:
        if self._next.text != mark or self._next.kind != "mark":
            raise self._error(self._next.place, f"got {self._next}, wanted {mark} {where}")
        self._take()

    def _error(self, place: Place, message: str) -> GrammarError:
        return GrammarError(f"{self._source}, {place}: {message}")
