"""What in the input mattered."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "cam": ["class_activation_map", "grad_cam"],
        "faults": ["AttributionWarning", "InterceptionError", "NoGradientError"],
        "gradients": ["gradient", "input_times_gradient", "integrated_gradients", "smooth_grad"],
        "rules": ["deconvolution", "guided_backprop"],
    },
)
