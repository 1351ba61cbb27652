"""The graphs of a bundle in C of our own, compiled where it runs; see `session.py`."""
