"""Made-up live shopping for `streamproc demo`: a drawn catalogue, moved as by a hand, offered by a synthetic voice."""
