"""Dense prediction: classifiers made convolutional, their class maps, and how far a dense prediction is right."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "agreement": ["intersection_over_union", "peak_signal_to_noise", "pixel_accuracy"],
        "convolutional": ["ClassMaps", "FullyConvolutional", "class_maps", "convolutionalize"],
    },
)
