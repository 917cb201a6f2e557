"""DeepDream: photographs with more of what a layer responds to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.dream.maximize import maximize
from lightning_viz.dream.objectives import layer as squared_norm
from lightning_viz.dream.parametrization import as_bytes, centered, clipped, pixels, visible
from lightning_viz.dream.transforms import jitter as cropped
from lightning_viz.dream.transforms import pad
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.target_types import Target
from lightning_viz.host_copies import HostCopies
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["DeepDream", "deep_dream"]


@dataclass(frozen=True)
class Octave:
    """One size of a DeepDream.

    Attributes:
        size: rows and columns.
        before: the objective of the images that it began with, ``[N]``, a sum over all places.
        after: that of the images that it ended with, in the same size.
        curve: the objective before each update, of the image with its margin, moved as in that step, ``[N, steps]``.
    """

    size: tuple[int, int]
    before: Tensor
    after: Tensor
    curve: Tensor


@html_display("name", "octaves", images=("pixels",))
@dataclass(frozen=True)
class DeepDream:
    """Photographs that a layer responds to more strongly.

    Attributes:
        name: of the objective.
        images: centered, ``[N, C, H, W]`` (see `PixelSpace.centered`).
        inputs: the same as the model takes them.
        pixel_space: how the inputs map to pixels.
        octaves: from the smallest to the photographs' own size.
        frames: pixels in 0 to 255 on the way, ``[F, N, C, H, W]``: the photographs and the details found by then.
        frame_steps: updates made by then.
    """

    name: str
    images: Tensor
    inputs: Tensor
    pixel_space: PixelSpace
    octaves: tuple[Octave, ...]
    frames: Tensor
    frame_steps: tuple[int, ...]

    @property
    def pixels(self) -> Tensor:
        """The photographs' pixels, ``[N, C, H, W]`` in [0, 1]."""
        return visible(self.images, self.pixel_space, bounded=True)


class NormalizedAscent(torch.optim.Optimizer):
    r"""Steps of one length, :math:`x \leftarrow x - \eta\, g / \overline{|g|}`, the mean taken over each image."""

    def __init__(self, parameters: list[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """One step; the closure computes the gradients and returns the loss."""
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for images in group["params"]:
                size = images.grad.abs().mean((1, 2, 3), keepdim=True)
                images -= group["lr"] * images.grad / size.clamp_min(torch.finfo(size.dtype).tiny)
        return loss


def deep_dream(
    model: nn.Module,
    photograph: Tensor,
    layer: str | Target,
    *,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    lr: float = 0.025,
    jitter: int = 16,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    frames: int = 40,
    progress: bool = True,
    forward: Forward | None = None,
) -> DeepDream:
    r"""DeepDream: amplifies what a layer responds to in photographs, octave by octave (Mordvintsev et al., 2015).

    .. math:: x \leftarrow x + \eta\, \nabla \lVert A \rVert^2 \big/ \overline{|\nabla \lVert A \rVert^2|}

    from a small copy of the photograph to its own size. Each octave starts from the photograph in its size and the
    details that the smaller ones dreamed, enlarged. Pixels are clipped to their bounds after every step. The image
    moves a little before every pass, so that no grid of the network's strides builds up, and has a mirrored margin
    around it while it is dreamed, so that the network's padding leaves no border.

    Args:
        model: any module; what it does behind the layer need not work at other sizes.
        photograph: as the model takes it, ``[C, H, W]``, or several, ``[N, C, H, W]``.
        layer: whose squared norm is climbed; or any target: ``layer("conv3") + layer("conv4")``.
        octaves: sizes, each `octave_scale` times the one before, the last the photograph's own.
        octave_scale: 1.4 (the authors').
        steps: in each octave; 10 (the authors').
        lr: eta, in deviations of the centered image: 0.025 is about 1.5 of 255 gray levels (the authors').
        jitter: how far an image moves to each side, in pixels; a quarter of the octave's shorter side at most.
        pixel_space: how the model's inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of the jitter.
        frames: how many images on the way to keep, evenly.
        progress: show a bar for an octave that takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        ValueError: the photograph does not lie in the space; the model cannot take the smallest octave: give fewer.
    """
    pixel_space = pixel_space or PixelSpace()
    photographs = centered(photograph, pixel_space, "the photograph")
    sizes = _sizes(photographs.shape[2:], octaves, octave_scale)
    climb = partial(
        maximize,
        model,
        layer if isinstance(layer, Target) else squared_norm(layer),
        pixel_space=pixel_space,
        copies=len(photographs),
        frames=0,
        progress=progress,
        forward=forward,
    )
    kept = np.linspace(0, octaves * steps, frames).round().astype(int).tolist()
    detail, done = torch.zeros_like(photographs), []
    copies = HostCopies()
    film = {0: copies.copy(as_bytes(visible(photographs, pixel_space, bounded=True)))}
    for number, size in enumerate(sizes):
        base = resize(photographs, size, antialias=True)
        start = clipped(base + resize(detail, size, antialias=True), pixel_space)
        margin = min(jitter, min(size) // 4)

        def clip(canvas: Tensor, gradient: Tensor, update: int) -> Tensor:
            canvas = clipped(canvas, pixel_space)
            if (step := number * steps + update) in kept:
                added = resize(F.pad(canvas, [-margin] * 4).to(base) - base, sizes[-1], antialias=True)
                film[step] = copies.copy(as_bytes(visible(photographs + added, pixel_space, bounded=True)))
            return canvas

        canvas = F.pad(start, [margin] * 4, mode="reflect")  # its borders, which nets see otherwise, are cut off
        dream = climb(
            image=pixels(canvas.shape[1:], start=canvas),
            steps=steps,
            optimizer=partial(NormalizedAscent, lr=lr),
            transforms=[pad(margin, "reflect"), cropped(2 * margin)],
            update_steps=[clip],
            seed=seed + number,
        )
        end = F.pad(dream.images, [-margin] * 4).to(base)
        before, after = (climb(image=pixels(images.shape[1:], start=images), steps=0) for images in (start, end))
        done.append(Octave(size, before.values, after.values, dream.curve))
        detail = end - base
    copies.wait()
    return DeepDream(
        name=after.names[0],
        images=after.images,
        inputs=after.inputs,
        pixel_space=pixel_space,
        octaves=tuple(done),
        frames=torch.stack(list(film.values())),
        frame_steps=tuple(film),
    )


def _sizes(size: Sequence[int], octaves: int, octave_scale: float) -> list[tuple[int, int]]:
    """Rows and columns of each octave, the smallest first."""
    if octaves < 1 or octave_scale <= 1:
        raise InvalidArgumentError(
            f"octaves={octaves}, octave_scale={octave_scale}: give 1 or more octaves, and a scale above 1"
        )
    height, width = size
    factors = [octave_scale**-octave for octave in reversed(range(octaves))]
    return [(max(1, round(height * factor)), max(1, round(width * factor))) for factor in factors]
