"""The paper's towers (COPE, arXiv 2308.05550): pages, short videos and live clips in one space, trained on any number
of ranks.

Presets `cope` (X-CLIP and shallow RoBERTa) and `clip` (any CLIP-type checkpoint). Written from a description of the
method (the published code has no licence); numbers reached with it are those of this re-implementation.
"""
