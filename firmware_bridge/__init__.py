"""The link to microcontroller front ends: framing and messages on the host's side."""
