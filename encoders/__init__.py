"""COPE towers: product pages, photos, frames and words as unit vectors of one space. Never imports streamproc."""
