"""Small networks, one for each way in which ReLUs are written and models are wrapped."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """Three convolutions, each with an activation right on its output, a pooling, and a linear layer."""

    def __init__(self, *activations: Activation):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(n, 8, 3, padding=1) for n in (3, 8, 8))
        self.head = nn.Linear(8, 3)
        self.activation1, self.activation2, self.activation3 = activations * 3 if len(activations) == 1 else activations
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.normal_(conv.weight, std=8 / conv.weight[0].numel() ** 0.5)  # values pass a ReLU6's bound

    def forward(self, x):
        x = self.activation1(self.conv1(x))
        x = self.activation2(self.conv2(F.max_pool2d(x, 2)))
        x = self.activation3(self.conv3(x))
        return self.head(x.mean((2, 3)))


class Skips(Net):
    """Each ReLU's input also feeds a skip past it."""

    def forward(self, x):
        x = self.conv1(x)
        x = x + self.conv2(self.activation1(x))
        x = x + self.conv3(self.activation2(x))
        return self.head(self.activation3(x).mean((2, 3)))


def discarded(x):
    F.relu_(x)
    return x


def modules() -> Net:
    return Net(nn.ReLU(), nn.ReLU(), nn.ReLU())


FORMS: dict[str, Callable[[], nn.Module]] = {
    "`nn.ReLU`": modules,
    "one `nn.ReLU`, reused": lambda: Net(nn.ReLU()),
    "`nn.ReLU(inplace=True)`": lambda: Net(*(nn.ReLU(inplace=True) for _ in range(3))),
    "`F.relu(x)`": lambda: Net(lambda x: F.relu(x)),
    "`x.relu()`": lambda: Net(lambda x: x.relu()),
    "`x.relu_()`": lambda: Net(lambda x: x.relu_()),
    "`F.relu_(x)`, result unused": lambda: Net(discarded),
    "`x.clamp(min=0)`": lambda: Net(lambda x: x.clamp(min=0)),
    "`nn.ReLU6`": lambda: Net(nn.ReLU6(), nn.ReLU6(), nn.ReLU6()),
    "a mixture": lambda: Net(nn.ReLU(inplace=True), lambda x: F.relu(x), lambda x: x.clamp_(min=0)),
    "input shared with a skip": lambda: Skips(nn.ReLU(), nn.ReLU(), nn.ReLU()),
}
"""One network for each way to write a ReLU."""

WRAPPERS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "fx-traced": lambda model, x: torch.fx.symbolic_trace(model),
    "jit-traced": lambda model, x: torch.jit.trace(model, x),
    "`torch.export`ed": lambda model, x: torch.export.export(model, (x,)).module(),
    "`torch.compile`d": lambda model, x: torch.compile(model),
    "in `DataParallel`": lambda model, x: nn.DataParallel(model),
}
"""Ways to wrap a network whose ReLUs are modules of their own."""


def build(row: str, x: Tensor, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """A row's network as its author wrote it, for the truth, and as it is handed to a tool, wrapped or a copy.

    Args:
        row: one of `FORMS` or `WRAPPERS`.
        x: an input, for tracing.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    plain = FORMS.get(row, modules)().to(x).eval()
    copied = copy.deepcopy(plain)
    return plain, WRAPPERS[row](copied, x) if row in WRAPPERS else copied
