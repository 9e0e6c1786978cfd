"""The only place where classes meet: settings in, running things out."""
