"""Words of messages."""

import unicodedata

# Categories of Unicode: controls, formats such as those that turn the direction, half pairs, ends of lines.
_KINDS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def counted(count: int, thing: str) -> str:
    """So many things: 1 vector, 2 vectors."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def visible(name: object, *, but: str = "", kinds: tuple[str, ...] = _KINDS) -> str:
    """The name of a file or a device for people to read: what would not be seen, or rule a terminal, is escaped.

    A name may hold anything but a zero: new lines, which would begin a line of its own, and escape sequences. Escapes
    are those of JSON.

    but:   characters that stay
    kinds: of Unicode that are escaped
    """
    text = str(name)
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in but or unicodedata.category(one) not in kinds else _escape(one) for one in text)


def _escape(one: str) -> str:
    return _SHORT.get(one) or (f"\\u{ord(one):04x}" if ord(one) < 0x1_0000 else f"\\U{ord(one):08x}")
