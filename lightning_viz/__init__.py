"""See what a network learns, while it learns: ``Trainer(callbacks=lightning_viz.default_views())``."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "callbacks.activation_maps": ["ActivationMaps"],
        "callbacks.activation_statistics": ["ActivationStatistics"],
        "callbacks.adversarial": ["Adversarial"],
        "callbacks.adversarial_training": ["AdversarialTraining"],
        "callbacks.default": ["default_views"],
        "callbacks.dreams": ["Dreams"],
        "callbacks.first_layer_filters": ["FirstLayerFilters"],
        "callbacks.grad_cam": ["GradCAM"],
        "callbacks.hyperplanes": ["Hyperplanes"],
        "callbacks.occlusion": ["Occlusion"],
        "callbacks.layer_embeddings": ["LayerEmbeddings"],
        "callbacks.messages": ["ViewError", "ViewWarning"],
        "callbacks.predictions": ["Predictions"],
        "callbacks.probe": ["Probe"],
        "callbacks.saliency": ["Saliency"],
        "callbacks.top_samples": ["TopSamples"],
        "callbacks.view": ["View"],
        "hooks.layers": ["LayerNotFoundError"],
        "hooks.observation": ["Observation"],
        "hooks.observing": ["observe"],
        "pixels": ["PixelSpace"],
    },
)
