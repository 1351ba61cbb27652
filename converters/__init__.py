"""From a checkpoint to the artefacts of a bundle, each checked against the model it came from."""
