"""streamproc: says which product of the catalogue a live stream shows or speaks of, and from when to when."""
