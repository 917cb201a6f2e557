"""What in the input mattered."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "baselines": ["blurred", "mean_colour"],
        "cam": [
            "class_activation_map",
            "eigen_cam",
            "grad_cam",
            "grad_cam_plus_plus",
            "hires_cam",
            "layer_cam",
        ],
        "faults": ["AttributionWarning", "InterceptionError", "NoGradientError"],
        "gradients": ["gradient", "input_times_gradient", "integrated_gradients", "smooth_grad"],
        "occluding": ["OcclusionMaps", "occlusion"],
        "rules": ["deconvolution", "guided_backprop", "guided_grad_cam"],
        "scoring": ["score_cam"],
    },
)
