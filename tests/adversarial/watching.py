"""What an attack does to a model: how much it is asked, and whether it is left as found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Activations:
    """Batches that a model was shown, and images that a gradient came back to."""

    batches: list[Tensor] = field(default_factory=list)
    backwards: int = 0

    @property
    def sizes(self) -> list[int]:
        return [len(one) for one in self.batches]

    def _back(self, gradient: Tensor) -> None:
        self.backwards += int(gradient.flatten(1).any(1).sum())


@contextmanager
def watched(model: nn.Module) -> Iterator[Activations]:
    """Look over the model's shoulder; on leaving, it must be as it was."""
    seen, before = Activations(), {name: one.clone() for name, one in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    gradients = [None if one.grad is None else one.grad.clone() for one in model.parameters()]
    state = torch.get_rng_state()

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.batches.append(inputs[0].detach().clone())
        if inputs[0].requires_grad:
            inputs[0].register_hook(seen._back)

    handle = model.register_forward_pre_hook(look)
    yield seen
    handle.remove()
    after = model.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert modes == [module.training for module in model.modules()]
    for one, gradient in zip(model.parameters(), gradients, strict=True):
        assert one.requires_grad
        assert one.grad is None if gradient is None else torch.equal(one.grad, gradient)
    assert torch.equal(state, torch.get_rng_state())


def linear(classes: int = 2, size: int = 8, lead: float = 0.0) -> nn.Sequential:
    """A linear classifier of gray images with a bias for class 0; boundaries are planes, of which all is known."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(size**2, classes)).eval()
    with torch.no_grad():
        model[1].bias[0] += lead
    return model


def grays(count: int, size: int = 8, seed: int = 0) -> Tensor:
    """Images without black and white, ``[N, 1, size, size]``: there is room on all sides."""
    return 0.3 + 0.4 * torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def distances(model: nn.Sequential, inputs: Tensor, order: float = 2) -> Tensor:
    """How far each image is from the nearest plane between its class and another, in the norm whose dual is `order`."""
    weights, scores = model[1].weight.detach(), model(inputs).detach()
    own = scores.argmax(1)
    slopes = (weights[own][:, None] - weights).norm(order, dim=2)
    ways = (scores.gather(1, own[:, None]) - scores) / slopes
    return ways.scatter(1, own[:, None], torch.inf).amin(1)
