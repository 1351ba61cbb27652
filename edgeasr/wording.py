"""Words of messages."""


def counted(count: int, thing: str) -> str:
    """So many things: 1 vector, 2 vectors."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
