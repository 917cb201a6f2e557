"""The weights before an update that a look follows, from which the update's relative size is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn

from lightning_viz.callbacks.run_protocol import Run, Update
from lightning_viz.callbacks.schedule import Schedule
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.layers import Layers, named_layers, select_layers
from lightning_viz.hooks.shards import owned_parameters, whole

_copies: WeakKeyDictionary[Any, tuple[int, WeakValueDictionary[int, Tensor]]] = WeakKeyDictionary()
"""By run, its completed updates and the copies of the weights after these, by the id of the weight, while held."""


class WeightCopy:
    r"""A copy that lives for one update: :math:`\lVert w_k - w_{k-1} \rVert_2 / \lVert w_{k-1} \rVert_2`.

    Args:
        max_bytes: size of the copy; weights beyond it are left out.

    Raises:
        InvalidArgumentError: less than a byte.

    Attributes:
        step: completed updates of the weights that are copied; None if none are.
        weights: the copies by layer.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InvalidArgumentError(f"max_bytes is {max_bytes}: give 1 or more")
        self.max_bytes = max_bytes
        self.forget()

    def forget(self) -> None:
        """Drop the copy."""
        self.step: int | None = None
        self.weights: dict[str, Tensor] = {}

    def take(self, step: int, weights: Mapping[str, Tensor], run: Any) -> None:
        """Copy weights, layer by layer, as far as `max_bytes` goes; what another copy of the run holds is shared.

        Args:
            step: completed updates.
            weights: after these.
            run: whose they are.
        """
        if (shared := _copies.get(run)) is None or shared[0] != step:
            shared = _copies[run] = step, WeakValueDictionary()
        self.step, self.weights, left = step, {}, self.max_bytes
        for name, weight in weights.items():
            if weight.nbytes <= left:
                copy = shared[1].get(id(weight))
                self.weights[name] = shared[1][id(weight)] = weight.detach().clone() if copy is None else copy
                left -= weight.nbytes

    def before_update(
        self, run: Run | None, due: Callable[[Update], bool], weights: Callable[[], Mapping[str, Tensor]]
    ) -> None:
        """Copy the weights if the update that comes now is followed by a look, else drop an earlier copy.

        Args:
            run: that is about to update; None if nobody looks any more.
            due: tells whether a look follows.
            weights: gives them.
        """
        if run is not None and self.step == run.step:  # gradients are accumulated over several batches
            return
        self.forget()
        if run is not None and due(run.next_update()):
            self.take(run.step, weights(), run)

    def ratios(self, step: int, after: Mapping[str, Tensor]) -> dict[str, float] | None:
        """Of each copied layer the norm of the update by that of the weights; None if the update was not foreseen.

        Args:
            step: completed updates, the one in question among them.
            after: weights after it.
        """
        before, earlier = self.weights, self.step
        self.forget()
        if earlier is None or earlier + 1 != step:
            return None
        norms = {  # each layer is gathered, where it is sharded, and let go of
            name: torch.stack([whole(after[name].detach() - old).norm(), whole(old).norm()]).float()
            for name, old in before.items()
            if name in after
        }
        values = torch.stack(list(norms.values())).cpu().tolist() if norms else []  # one transfer for all layers
        return {name: change / size for name, (change, size) in zip(norms, values, strict=True) if size > 0}

    def __getstate__(self) -> dict[str, Any]:
        """What lives only in this process stays here."""
        return {"max_bytes": self.max_bytes, "step": None, "weights": {}}


def precedes_look(update: Update, schedule: Schedule) -> bool:
    """Whether an update is followed by a look, as far as that can be foreseen.

    Args:
        update: that comes now.
        schedule: of the view.
    """
    ends = update.ends_epoch and schedule.at_epoch_end(update.epoch)
    return update.ends_run or ends or schedule.at_step(update.step)


def own_weights(model: nn.Module, layers: Layers) -> dict[str, nn.Parameter]:
    """The weights of layers by name, but vectors and those that an earlier layer shares.

    Args:
        model: of the run.
        layers: whose; all if empty.
    """
    owned = owned_parameters(model)  # what is gathered for a pass is not what the optimizer has
    modules = select_layers(model, layers) if layers else named_layers(model)
    # Not the attribute: a weight that is computed (spectral norm) moves on when it is asked for.
    weights = {name: module._parameters.get("weight") for name, module in modules.items()}
    found = {
        name: owned.get(id(weight), weight)
        for name, weight in weights.items()
        if weight is not None and weight.dim() > 1
    }
    own = {id(weight): name for name, weight in reversed(found.items())}
    return {name: weight for name, weight in found.items() if own[id(weight)] == name}


def trained_weights(model: nn.Module, layers: Layers) -> dict[str, nn.Parameter]:
    """Those of `own_weights` that want a gradient.

    Args:
        model: of the run.
        layers: whose; all if empty.
    """
    return {name: weight for name, weight in own_weights(model, layers).items() if weight.requires_grad}


def checksums(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """A number for each weight that changes if any of its values does, as far as one number can.

    The sum of the values' bits, which does not depend on the order of summation.

    Args:
        weights: by name; those of other than floating-point types are left out.
    """
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    floating = {name: weight.detach() for name, weight in weights.items() if weight.is_floating_point()}
    sums = [
        whole(weight).contiguous().view(kinds[weight.element_size()]).sum(dtype=torch.int64)
        for weight in floating.values()
    ]
    return dict(zip(floating, torch.stack(sums).cpu().tolist() if sums else [], strict=True))


def all_finite(weights: Mapping[str, Tensor]) -> dict[str, bool]:
    """Whether each weight is free of NaN and infinity.

    Args:
        weights: by name.
    """
    finite = [_is_finite(whole(weight.detach())) for weight in weights.values()]
    return dict(zip(weights, torch.stack(finite).cpu().tolist() if finite else [], strict=True))


def _is_finite(weight: Tensor) -> Tensor:
    """Without a copy of the weight; its extremes are NaN if any value is."""
    if not weight.numel():
        return weight.new_ones((), dtype=torch.bool)
    return torch.stack((torch.view_as_real(weight) if weight.is_complex() else weight).aminmax()).isfinite().all()
