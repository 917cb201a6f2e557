"""The hook core: choose layers, record them, change ReLU's backward rule, leave everything as found. Knows torch only.

Nothing is imported before it is asked for: the drawing process unpickles an `Observation` without paying for torch.
"""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "guard": ["looking", "same_randomness", "unchanged"],
        "layers": ["LayerNotFoundError", "LayerNotReachedError", "Layers", "select_layers"],
        "maps": ["as_maps", "feature_count"],
        "observation": ["Observation", "ReLUs"],
        "observing": ["observe", "observe_batches"],
        "random_weights": ["reinitialised"],
        "receptive_field": ["Rectangle", "receptive_fields"],
        "relu": ["relu_rule"],
        "repeating": ["Passes", "Seen", "passes"],
        "target": ["Target", "channel", "classes", "maximum", "region", "top", "unit"],
    },
)
