"""What hears while something else thinks: sources whose samples come from a thread of their own."""
