"""Read, call, yield: a fold per stream over one topic."""
