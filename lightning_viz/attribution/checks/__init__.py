"""Can an attribution be believed? Checks that run on any attribution function ``(model, inputs, target) -> maps``.

Options go in with `functools.partial`, a map that is there already as ``lambda *_: heat``.
"""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "cascade": ["Randomisation", "randomisation", "rank_correlation"],
        "curves": ["Curves", "deletion", "insertion"],
        "heat": ["Attribute", "as_heat"],
        "pointing": ["Pointing", "pointing_game"],
    },
)
