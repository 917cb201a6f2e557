"""Which window of a layer's map a changed window of its input reaches: the arithmetic of receptive fields, forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PatchWindows:
    """A window on each of n copies of a map, all of one size.

    Attributes:
        starts: first row and column of each, ``[n, d]`` for maps of d dimensions, on the CPU.
        size: height and width, d numbers.
        changed: the first row and column of what may differ in each, and those behind its last, ``[2, n, d]``; it lies
            within the window. The whole window if None.
    """

    starts: Tensor
    size: tuple[int, ...]
    changed: Tensor | None = None

    @classmethod
    def around(cls, changed: Tensor, sides: Sequence[int]) -> PatchWindows:
        """The smallest windows of one size around what may differ.

        Args:
            changed: as above.
            sides: height and width of the maps, onto which windows are moved back where they lie over the border.
        """
        size = (changed[1] - changed[0]).amax(0).clamp_min(1)
        starts = torch.minimum(changed[0], torch.tensor(sides, device="cpu") - size)
        return cls(starts, tuple(size.tolist()), changed)

    @property
    def extents(self) -> Tensor:
        """What may differ, see `changed`."""
        if self.changed is not None:
            return self.changed
        return torch.stack([self.starts, self.starts + torch.tensor(self.size, device="cpu")])

    def matches(self, other: PatchWindows) -> bool:
        """Whether they are the same windows."""
        return self.size == other.size and torch.equal(self.starts, other.starts)

    def places(self, sides: Sequence[int]) -> Tensor:
        """Numbers of the windows' places on their maps, row by row, ``[n, *size]``.

        Args:
            sides: height and width of the maps.
        """
        numbers = torch.zeros(len(self.starts), *[1] * len(sides), dtype=torch.long, device="cpu")
        for axis, (side, length) in enumerate(zip(sides, self.size, strict=True)):
            along = self.starts[:, axis, None] + torch.arange(length, device="cpu")
            shape = [len(along), *[1] * len(sides)]
            shape[1 + axis] = length
            numbers = numbers * side + along.view(shape)
        return numbers

    def moved(self, steps: Sequence[int]) -> PatchWindows:
        """The same windows on maps with so many more rows above and columns on the left."""
        return PatchWindows(self.starts + torch.tensor(steps, device="cpu"), self.size) if any(steps) else self


@dataclass(frozen=True)
class Sliding:
    """How the kernel of a convolution or pooling slides; height and width, as everywhere.

    Attributes:
        kernel: its size.
        stride: its steps.
        padding: added on both sides.
        dilation: distance of what it reads.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def reached(self, windows: PatchWindows, sides: Sequence[int]) -> PatchWindows:
        r"""The windows of the output that read anything of windows of the input.

        Output :math:`o` reads from :math:`os - p` to :math:`os - p + d(k - 1)`.

        Args:
            windows: of the input.
            sides: height and width of the output.
        """
        stride, last = (torch.tensor(part, device="cpu") for part in (self.stride, sides))
        spans = [step * (of - 1) for step, of in zip(self.dilation, self.kernel, strict=True)]
        first, end = windows.extents + torch.tensor(self.padding, device="cpu")
        first = -torch.div(torch.tensor(spans, device="cpu") - first, stride, rounding_mode="floor")
        first = torch.minimum(first.clamp_min(0), last - 1)
        end = torch.minimum(torch.div(end - 1, stride, rounding_mode="floor") + 1, last)
        return PatchWindows.around(torch.stack([first, torch.maximum(end, first)]), sides)

    def read(self, windows: PatchWindows) -> PatchWindows:
        """The windows of the padded input that windows of the output read."""
        spans = [step * (of - 1) + 1 for step, of in zip(self.dilation, self.kernel, strict=True)]
        size = [(of - 1) * step + span for of, step, span in zip(windows.size, self.stride, spans, strict=True)]
        return PatchWindows(windows.starts * torch.tensor(self.stride, device="cpu"), tuple(size))

    def missing(self, sides: Sequence[int], input_sides: Sequence[int]) -> tuple[int, ...]:
        """Rows below and columns on the right that an input without padding there lacks for such an output."""
        axes = range(len(sides))
        needs = [(sides[axis] - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) for axis in axes]
        return tuple(max(0, needs[axis] + 1 - self.padding[axis] - input_sides[axis]) for axis in axes)


def union(parts: Sequence[PatchWindows], sides: Sequence[int]) -> PatchWindows:
    """The smallest windows of one size that hold those of each part, copy by copy.

    Args:
        parts: windows on the same copies.
        sides: height and width of their maps.
    """
    if len(parts) == 1:
        return parts[0]
    extents = torch.stack([part.extents for part in parts])
    return PatchWindows.around(torch.stack([extents[:, 0].amin(0), extents[:, 1].amax(0)]), sides)
