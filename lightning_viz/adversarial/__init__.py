"""Inputs moved a little, and what then happens: how little changes a network's mind, and to what it is blind."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "ascending": ["fgsm", "gradient_ascent", "pgd"],
        "attacked": ["Attacked", "Record"],
        "bias": ["ShapeBias", "shape_bias"],
        "boundary": ["deep_fool"],
        "corrupting": ["CORRUPTIONS", "CORRUPTION_FAMILIES", "Corrupted", "corrupt", "corruptions"],
        "corruption_errors": [
            "CorruptionError",
            "CorruptionWarning",
            "compare_corruption_error",
            "corruption_error",
        ],
        "cues": ["CueConflict", "CueWarning", "cue_conflict"],
        "defending": [
            "DEFENCES",
            "Defended",
            "EpsilonCurve",
            "bit_depth",
            "defences",
            "epsilon_curve",
            "gaussian_smoothing",
            "median_smoothing",
            "noise",
            "re_encoding",
        ],
        "evolving": ["one_pixel"],
        "least": ["least_norm"],
        "losses": ["cross_entropy", "margin"],
        "neighbourhood": ["Sphere", "sphere"],
        "norms": ["L2", "LINF", "Norm"],
        "penalised": ["carlini_wagner"],
        "squares": ["square"],
        "transferring": ["transfer"],
        "victim": ["AttackWarning"],
    },
)
