"""What runs to an end: over files, topics and collections."""
