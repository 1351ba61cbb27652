"""Corpora of speech as others publish them, brought into manifests and shards to train from."""
