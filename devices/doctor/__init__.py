"""Whether this machine can hear: everything that could stand in the way, each with what to do about it."""
