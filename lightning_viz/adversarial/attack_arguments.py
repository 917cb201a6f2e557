"""Arguments that attacks share: their types, and their descriptions in docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union

from torch import Tensor

Labels = Union[Tensor, Sequence[int]]
"""One class index per sample, ``[N]``."""

Epsilon = Union[float, Sequence[float], Tensor]
"""Bound of a perturbation: one radius, E radii ``[E]``, or one per sample ``[E, N]``."""

ATTACK_ARGUMENTS = {
    "model": "classifier or detector; it runs in eval mode, and its state is restored.",
    "inputs": "as the model takes them, ``[N, ...]``, or a detector's list of images, which are padded to one size.",
    "labels": "true classes, ``[N]``; the model's predictions if omitted. Of a detector the detection whose score is\n"
    '        lowered, ``"box[0]"`` if omitted: class 1 while it stands, 0 once its score is halved.',
    "epsilon": "radius of the ball, in pixels (8/255, customary for photographs); several give results ``[E, ...]``.",
    "norm": 'of the ball and the steps, ``"linf"`` or ``"l2"``.',
    "target": "target class, one for all or ``[N]``; untargeted if omitted.",
    "loss": 'maximized for the label, or minimized for the target; ``"margin"`` does not saturate on confident\n'
    "        predictions.",
    "stop_on_success": "stop a sample, and remove it from the batch, as soon as it is fooled.",
    "pixel_space": "maps inputs to pixels; inputs are pixels in [0, 1] if omitted.",
    "seed": "of the random starts and of what the model itself draws.",
    "batch_size": "samples per forward pass; all if omitted.",
    "progress": "show a progress bar after a few seconds.",
    "forward": "calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.",
}
"""What the docstrings of attacks say of their common arguments."""

_RAISES = "Raises:\n    InvalidArgumentError: inputs, classes or options are invalid (see `attacked_model`)."

_Function = TypeVar("_Function", bound=Callable[..., Any])


def shared_arguments(
    texts: Mapping[str, str] = ATTACK_ARGUMENTS, raises: str = _RAISES
) -> Callable[[_Function], _Function]:
    """Make a decorator that adds to a docstring the arguments that it leaves out, in the order of the signature.

    Args:
        texts: descriptions by argument.
        raises: the section ``Raises``, for a docstring without one.

    Raises:
        KeyError: neither the docstring nor `texts` describes an argument.
    """

    def decorate(function: _Function) -> _Function:
        head, _, tail = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:\n")
        described, *sections = tail.split("\n\n")
        own = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", described, re.MULTILINE))
        lines = [f"    {name}: {own.get(name) or texts[name]}" for name in inspect.signature(function).parameters]
        sections += [] if any(section.startswith("Raises:") for section in sections) else [raises]
        function.__doc__ = "\n\n".join([head, "\n".join(["Args:", *lines]), *sections])
        return function

    return decorate
