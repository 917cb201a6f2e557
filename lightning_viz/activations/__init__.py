"""What the samples excite: channels to show, layers as vectors, the strongest samples, statistics."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "channels": ["Channels", "choose_channels"],
        "ranking": ["NOBODY", "Strongest", "peaks_of"],
        "statistics": ["Bounds", "LayerStatistics", "bounds_of", "edges", "reading_of"],
        "vectors": ["PROJECTED_ABOVE", "PROJECTED_TO", "as_vectors", "count_sketch"],
    },
)
