"""Inputs made by optimisation: what a unit wants, what a layer still knows."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "between": ["YOSINSKI", "Preset", "blur", "clip_small_contribution", "clip_small_norm", "decay"],
        "climb": ["DreamWarning"],
        "fooling": ["Fooling", "fool"],
        "images": ["Image", "cppn", "displayed", "fourier", "pixels"],
        "inverting": ["Inversion", "invert"],
        "maximizing": ["Dream", "maximize"],
        "objectives": [
            "Objective",
            "channel",
            "direction",
            "diversity",
            "gram",
            "layer",
            "logit",
            "match",
            "objective",
            "unit",
        ],
        "octaves": ["DeepDream", "deep_dream"],
        "priors": ["alpha_norm", "edge_energy", "l2", "total_variation"],
        "searching": ["PriorSearch", "search_priors"],
        "styling": ["VGG19_CONTENT", "VGG19_STYLE", "StyleTransfer", "style_transfer"],
        "transforms": ["jitter", "pad", "rotate", "scale", "standard"],
    },
)
