"""Arguments that are read as programs: what was said must not stand in them, where it could be made to run anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

# Programs, and the flags behind which they take a script.
_FLAGS = {
    re.compile(r"(ba|da|a|k|z|c|tc|fi|pw)?sh|su|script|runuser"): re.compile(r"-[A-Za-z]*c|--command\b"),
    re.compile(r"(python|perl|ruby|node|nodejs|php|lua|luajit|Rscript)[\d.]*"): re.compile(
        r"-[A-Za-z]*[cerpE]|--(eval|print|run)\b"
    ),
    re.compile("env"): re.compile(r"-[A-Za-z]*S|--split-string\b"),
}
# Their other machine's shell, or this one's, reads all that follows.
_READ_WHOLE = re.compile(r"ssh|watch|eval")
_WITH_A_NAME_FIRST = ("su", "script", "runuser", "env")


def script_with(words: Sequence[str], has_placeholder: Callable[[str], bool]) -> str | None:
    """The shell or interpreter whose script a placeholder stands in; None where none does.

    words: a command line; the program may stand behind others, as in env, sudo, nice, timeout, busybox
    """
    for place, word in enumerate(words):
        name = PurePath(word).name
        if any(map(has_placeholder, _scripts(name, words[place + 1 :]))):
            return name
    return None


def _scripts(name: str, after: Sequence[str]) -> Iterator[str]:
    """What the program of this name reads as a script, of the words after it."""
    if _READ_WHOLE.fullmatch(name):
        yield from after
    flag = next((flag for program, flag in _FLAGS.items() if program.fullmatch(name)), None)
    if flag is None or _is_file(name, after):
        return
    for place, word in enumerate(after):
        if flag.match(word):
            yield word  # -e'SCRIPT'
            script, *others = after[place + 1 :] or [""]
            yield script
            if script.startswith(("-", "+")):
                yield from others  # where the script is, is not worth guessing


def _is_file(name: str, after: Sequence[str]) -> bool:
    """Whether a script of a file is run: the flags behind it are its own."""
    return bool(after) and name not in _WITH_A_NAME_FIRST and not after[0].startswith(("-", "+"))
