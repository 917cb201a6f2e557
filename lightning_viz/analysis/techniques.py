"""The table of techniques, in the order in which a report shows them."""

from __future__ import annotations

from lightning_viz.analysis.technique import Technique

TECHNIQUES: tuple[Technique, ...] = ()
"""A new one is a new row."""
