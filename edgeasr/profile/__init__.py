"""What the machine can do and what the model asks of it: bandwidth, arithmetic, counters, predictions."""
