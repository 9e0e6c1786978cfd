"""The nouns and rules, pure: time, randomness and state come in as arguments."""
