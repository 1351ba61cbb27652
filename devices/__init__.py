"""What is known of each board: profiles, detection and how the recogniser is set up on it."""
