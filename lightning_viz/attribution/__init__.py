"""What in the input mattered."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "gradients": ["NoGradientError", "gradient", "smooth_grad"],
        "cam": ["class_activation_map", "grad_cam"],
    },
)
