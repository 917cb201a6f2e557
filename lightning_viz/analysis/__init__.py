"""Training is over and a checkpoint lies there: the views once more, and what goes deeper, into one report."""

from lightning_viz._lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "analyzing": ["analyze"],
        "checkpoints": ["AnalysisError", "read_checkpoint"],
        "case": ["Case"],
        "comparing": ["compare"],
        "naming": ["Named"],
        "subject": ["Subject"],
    },
)
