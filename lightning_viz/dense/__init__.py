"""Dense prediction: classifiers made convolutional, and their class maps."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "convolutional": ["ClassMaps", "FullyConvolutional", "class_maps", "convolutionalize"],
    },
)
