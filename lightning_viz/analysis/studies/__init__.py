"""Techniques, a file for each kind: a function computes and draws, for `analyze` and for its command."""
