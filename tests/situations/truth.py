"""The truth of what was drawn, by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .situation import Seen


def all_right(seen: Seen, confidence: float = 0.9, classes: int = 4) -> None:
    """The picture says of every sample that it is recognized, with confidence; so many classes occur among them."""
    verdicts = seen.verdicts
    assert len({verdict.truth for verdict in verdicts}) == classes, verdicts
    assert all(verdict.truth == verdict.prediction for verdict in verdicts), verdicts
    assert all(verdict.confidence > confidence for verdict in verdicts), verdicts


def no_class_words(seen: Seen) -> None:
    """Where there are no classes, no picture names one."""
    for drawing in seen.drawings:
        assert not drawing.arguments.get("verdicts"), f"{drawing.tag}: {drawing.arguments['verdicts']}"
        assert "class" not in str(drawing.arguments.get("target", "")), f"{drawing.tag}: {drawing.arguments['target']}"


def are_rows_of(inputs: Tensor, data: Tensor) -> None:
    """Each sample holds the values of one of the data, whatever was done to its shape."""
    assert isinstance(inputs, Tensor), type(inputs)
    given, known = (x.float().flatten(1).sort(1).values for x in (inputs, data))
    assert given.shape[1] == known.shape[1], f"{list(inputs.shape)} is not of {list(data.shape)}"
    assert (torch.cdist(given, known).amin(1) < 1e-4).all(), "the inputs are not the data's"


def grad_cam_by_hand(layer: nn.Module, forward: Callable[[], Tensor], score: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of the gradient over places as weights of the activations ``[N, K, ...]``, rectified: ``[N, ...]``."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    outputs = forward()
    handle.remove()
    (gradient,) = torch.autograd.grad(score(outputs).sum(), kept[0])
    weights = gradient.mean(tuple(range(2, gradient.dim())), keepdim=True)
    return F.relu((weights * kept[0]).sum(1)).detach()


def own_class(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Each sample's own logit."""
    return lambda outputs: outputs.gather(1, labels[:, None])


def shown_as_images(seen: Seen) -> None:
    """Recognized, and the pictures beside the maps are the images of `pictures`."""
    all_right(seen)
    assert seen.last("activations")["images"].shape[1:3] == (16, 16)
