"""How inputs are shown: images, series as curves, volumes as slices."""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.callbacks.probe import displayed_input
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.tiles import to_rgb

__all__ = ["InputForm", "arrange", "input_form", "shown_inputs"]

InputForm = Literal["image", "volume", "series", "sequence", "wave", "matrix", "vector"]
"""``[N, C, H, W]``; ``[N, C, D, H, W]``; in time ``[N, C, L]``, ``[N, T, F]`` or ``[N, L]``; ``[N, H, W]``; others."""

_LEAST_MATRIX = 8  # rows and columns


def input_form(model: nn.Module | None, inputs: Any) -> InputForm:
    """The form of the input that is shown, by its axes and by the first of the model's layers that tells time apart.

    Args:
        model: None where it is not at hand: then the longer one of two axes is time.
        inputs: of the model.
    """
    shown = displayed_input(inputs)
    if not shown.is_floating_point() or shown.dim() not in (2, 3, 4, 5):
        return "vector"
    if shown.dim() >= 4:
        return "image" if shown.dim() == 4 else "volume"
    sides = tuple(shown.shape[1:])
    for module in () if model is None else model.modules():
        form = _form_at(module, sides)
        if form is not None:
            return form
    if len(sides) == 1:
        return "vector"
    if min(sides) >= _LEAST_MATRIX:
        return "matrix"
    return "series" if sides[1] >= sides[0] else "sequence"


def _form_at(module: nn.Module, sides: tuple[int, ...]) -> InputForm | None:
    """What a layer's weights tell of inputs of a length or of two axes; None if nothing."""
    if len(sides) == 1:
        if isinstance(module, nn.Conv1d) and module.in_channels == 1:
            return "wave"
        return "vector" if isinstance(module, nn.Linear) else None
    if isinstance(module, nn.Conv1d):
        return "series" if module.in_channels == sides[0] else "sequence" if module.in_channels == sides[1] else None
    if isinstance(module, nn.Conv2d):
        return "matrix"
    widths = ("input_size", "embed_dim", "in_features", "d_model")
    width = next((getattr(module, name) for name in widths if isinstance(getattr(module, name, None), int)), None)
    return "sequence" if width == sides[1] else "series" if width == sides[0] else None


def arrange(values: Tensor, form: InputForm, lead: int = 1) -> Tensor:
    """Values of the input that is shown, channels first: ``[N, C, L]``, ``[N, C, H, W]``, ...; of a vector a strip.

    Args:
        values: the input, or maps towards it.
        form: of the input.
        lead: axes before those of a sample: of samples, and of several targets before it.
    """
    if form in ("image", "volume", "series"):
        return values
    if form == "sequence":
        return values.transpose(-1, -2)
    if form == "wave":
        return values.unsqueeze(-2)
    if form == "matrix":
        return values.unsqueeze(-3)
    return values.flatten(lead)[..., None, None, :] if values.dim() > lead else values[..., None, None, None]


def shown_inputs(inputs: Any, form: InputForm, pixel_space: PixelSpace | None) -> NDArray[Any]:
    """Inputs as pages take them: images ``[N, H, W, 3]``, volumes ``[N, D, H, W, 3]``, series ``[N, C, L]``.

    Args:
        inputs: of the model; of a form that has no places the values are a strip.
        form: of what is shown of them.
        pixel_space: of images and volumes; guessed of volumes if omitted.
    """
    values = arrange(displayed_input(inputs).float(), form)
    if form in ("series", "sequence", "wave"):
        return values.numpy()
    if form == "image":
        return to_rgb((pixel_space or PixelSpace()).to_pixels(values).numpy())
    if form == "volume":
        pixels = (pixel_space or PixelSpace.guess(values)).to_pixels(values)
        frames = to_rgb(pixels.transpose(1, 2).flatten(0, 1).numpy())
        return frames.reshape(len(values), -1, *frames.shape[1:])
    low, high = values.amin(), values.amax()
    return to_rgb(((values - low) / (high - low).clamp_min(1e-12)).numpy())
