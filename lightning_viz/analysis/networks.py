"""Networks to be analysed: a LightningModule as it was trained, or any other module, for Lightning to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_viz.analysis.checkpoints import AnalysisError, Checkpoint
from lightning_viz.analysis.naming import Named, made, taken_by
from lightning_viz.callbacks.lightning import package_of

Model = nn.Module | type[nn.Module] | Named
"""An instance, whose weights are replaced; a class; or a class path with init args."""


def network(model: Model, checkpoint: Checkpoint | None) -> nn.Module:
    """A network with a checkpoint's weights, in eval mode.

    Of a class, what the module kept with ``save_hyperparameters()`` are the arguments, as far as none are given.

    Args:
        model: what it is.
        checkpoint: of which the weights are; None: as they are.

    Raises:
        AnalysisError: the model cannot be made, or the checkpoint is not of such a model.
    """
    kept = {} if checkpoint is None else checkpoint.hyper_parameters
    if isinstance(model, nn.Module):
        found = model
    elif isinstance(model, type):
        found = _of_class(model, kept)
    else:
        found = made(model, nn.Module, "model", kept)
    if isinstance(found, package_of(found).LightningModule):
        found.configure_model()  # as Lightning does before it loads weights
    if checkpoint is not None:
        _load(found, checkpoint)
    return found.eval()


def for_trainer(net: nn.Module) -> Any:
    """A network that a Trainer can validate: itself, or wrapped if it is no LightningModule.

    Args:
        net: of any kind.
    """
    pl = package_of(net)
    if isinstance(net, pl.LightningModule):
        return net

    class Wrapped(pl.LightningModule):  # type: ignore[misc, name-defined]
        """Gives a network what a Trainer asks for."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.net(*args, **kwargs)

    return Wrapped()


def network_of(pl_module: Any) -> nn.Module:
    """What `for_trainer` was given.

    Args:
        pl_module: what it made of it.
    """
    wrapped = type(pl_module).__qualname__ == "for_trainer.<locals>.Wrapped"
    found: nn.Module = pl_module.net if wrapped else pl_module
    return found


def _of_class(model: type[nn.Module], kept: Mapping[str, Any]) -> nn.Module:
    try:
        return model(**taken_by(model, kept))
    except TypeError as error:
        raise AnalysisError(
            f"{model.__name__} cannot be made: {error}; give an instance, or call save_hyperparameters() in its "
            "__init__ so that checkpoints know its arguments"
        ) from error


def _load(net: nn.Module, checkpoint: Checkpoint) -> None:
    weights = checkpoint.state_dict
    if isinstance(net, package_of(net).LightningModule):
        net.on_load_checkpoint(dict(checkpoint.content))
    own = net.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    other = [name for name in own if name in weights and not _fits(own[name], weights[name])]
    strict = getattr(net, "strict_loading", True)
    if other or (strict and (missing or unexpected)):
        said = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, what in ((missing, "weights missing"), (unexpected, "unexpected"), (other, "of another shape"))
            if names
        ]
        raise AnalysisError(
            f"{checkpoint.path} is not of {type(net).__name__}: {'; '.join(said)}; give the model that was trained, "
            "with its arguments"
        )
    net.load_state_dict(dict(weights), strict=strict)


def _fits(own: Any, saved: Any) -> bool:
    """Whether a saved weight may take the place of a model's own; a lazy one takes any, an extra state is no weight."""
    if not isinstance(own, Tensor) or not isinstance(saved, Tensor) or is_lazy(own):
        return True
    return own.shape == saved.shape
