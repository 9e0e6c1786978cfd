"""The picture of the system as a value: topics, agents, and who reads and writes what."""
