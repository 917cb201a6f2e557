"""Views: Lightning callbacks that look at a training run and leave it alone.

Nothing is imported before it is asked for: the drawing process lives in this room and must not pay for torch.
"""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "activation_maps": ["ActivationMaps"],
        "activation_statistics": ["ActivationStatistics"],
        "adversarial": ["Adversarial"],
        "adversarial_training": ["AdversarialTraining"],
        "default": ["default_views"],
        "dreams": ["Dreams"],
        "first_layer_filters": ["FirstLayerFilters"],
        "grad_cam": ["GradCAM"],
        "hyperplanes": ["Hyperplanes"],
        "layer_embeddings": ["LayerEmbeddings"],
        "look": ["Look", "Needs"],
        "messages": ["ViewError", "ViewWarning"],
        "predictions": ["Predictions"],
        "probe": ["Probe"],
        "saliency": ["Saliency"],
        "sketch": ["Drawn", "Sketch"],
        "top_samples": ["TopSamples"],
        "view": ["View"],
    },
)
