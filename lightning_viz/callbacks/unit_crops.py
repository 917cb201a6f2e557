"""What one position of a layer sees: a channel's dream, and its strongest samples, cut to the receptive field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.activations.top_k import NO_SAMPLE, TopK, channel_peaks, choose_channels
from lightning_viz.hooks.pytree import image_of
from lightning_viz.hooks.receptive_field import Rectangle, receptive_fields
from lightning_viz.render.activations import Crop
from lightning_viz.render.colors import Colors
from lightning_viz.render.dreams import stretch_contrast
from lightning_viz.render.text import times

Fields = dict[Any, Rectangle | None]
"""Receptive fields by call, shape of the image and position: they never change."""

STRONGEST = 2  # samples beside a dream


def known_fields(
    model: nn.Module, call: str, inputs: Any, places: Sequence[tuple[int, int]], known: Fields
) -> list[Rectangle | None]:
    """Of each position the receptive field; None of inputs that are no images.

    Args:
        model: in training; left as found.
        call: of the layer.
        inputs: of the model.
        places: rows and columns in the layer's maps.
        known: receptive fields found before, to which those found now are added.
    """
    image = image_of(inputs)
    if image is None:
        return [None] * len(places)
    size = tuple(image.shape[1:])
    if new := sorted({place for place in places if (call, size, place) not in known}):
        found = receptive_fields(model, inputs, call, new)
        known.update({(call, size, place): field for place, field in zip(new, found, strict=True)})
    whole = Rectangle(0, size[1], 0, size[2])  # where no gradient tells, nothing is cut off
    return [known[call, size, place] or whole for place in places]


def cut(image: Colors, field: Rectangle, **options: Any) -> Crop:
    """The part of a sample that a position sees.

    Args:
        image: the sample ``[H, W, 3]``.
        field: of the position.
        options: further attributes of the crop.
    """
    top, bottom, left, right = field
    return Crop(image[top:bottom, left:right], top=top == 0, left=left == 0, **options)


@dataclass(frozen=True)
class SeenByUnits:
    """What a layer's channels see.

    Attributes:
        field: of the position in the middle of their maps.
        less: whether that is less than the image.
        samples: the strongest of each channel, cut to what their maximum sees; none of private ones.
        count: among how many they are the strongest.
        words: for the caption.
    """

    field: Rectangle
    less: bool
    samples: list[list[Crop]]
    count: int
    words: list[str]

    def shown(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Dreams cut to the field and stretched in contrast.

        Args:
            pixels: ``[N, C, H, W]``.
        """
        top, bottom, left, right = self.field
        return stretch_contrast(pixels[:, :, top:bottom, left:right])


@dataclass
class UnitCrops:
    """Of a layer's channels what the position in the middle sees, and the samples that excite them most.

    Attributes:
        call: of the layer.
        channels: to be shown.
        size: height and width of the image.
        places: height and width of the layer's maps; None: it has no places in two dimensions.
        ranking: of the samples seen so far.
    """

    call: str
    channels: Sequence[int]
    size: tuple[int, int]
    places: tuple[int, int] | None = None
    ranking: TopK = field(init=False)

    def __post_init__(self) -> None:
        self.ranking = TopK.empty(len(self.channels), STRONGEST)

    def add(self, output: Tensor, maps: Tensor | None) -> None:
        """Rank further samples.

        Args:
            output: the layer's, of a batch ``[n, ...]``.
            maps: the same as maps ``[n, K, *S]``; None if it has no places.

        Raises:
            InvalidArgumentError: a channel that the layer does not have.
        """
        if maps is not None and maps.dim() == 4:
            self.places = (maps.shape[2], maps.shape[3])
        else:
            maps = output.flatten(1)[:, :, None, None] if maps is None else maps.flatten(2)[:, :, None]
        peaks = channel_peaks(maps, choose_channels(maps, self.channels, len(self.channels))).cpu().double().numpy()
        first = self.ranking.seen
        self.ranking = self.ranking.update(peaks, maps.shape[3], np.arange(first, first + len(maps)))

    def seen(self, model: nn.Module, inputs: Any, images: NDArray[np.uint8] | None, known: Fields) -> SeenByUnits:
        """What the channels see, with the strongest of the samples.

        Args:
            model: left as found.
            inputs: of the model.
            images: the samples in the order in which they were added ``[N, H, W, 3]``; None: they are not shown.
            known: receptive fields found before, to which those found now are added.
        """
        field = self.middle(model, inputs, known)
        samples = [] if images is None else self.samples(model, inputs, images, known)
        words = self.words(field, samples=bool(samples))
        return SeenByUnits(field, self.sees_less(field), samples, self.ranking.seen, words)

    def middle(self, model: nn.Module, inputs: Any, known: Fields) -> Rectangle:
        """What the position in the middle of the maps sees: the whole image if the layer has none.

        Args:
            model: left as found.
            inputs: of the model.
            known: receptive fields found before, to which those found now are added.
        """
        whole = Rectangle(0, self.size[0], 0, self.size[1])
        if self.places is None:
            return whole
        (found,) = known_fields(model, self.call, inputs, [(self.places[0] // 2, self.places[1] // 2)], known)
        return found or whole

    def samples(self, model: nn.Module, inputs: Any, images: NDArray[np.uint8], known: Fields) -> list[list[Crop]]:
        """The strongest samples of each channel, cut to what their maximum sees; none that are not above 0.

        Args:
            model: left as found.
            inputs: of the model.
            images: the samples in the order in which they were added ``[N, H, W, 3]``.
            known: receptive fields found before, to which those found now are added.
        """
        rows = zip(self.ranking.samples.tolist(), self.ranking.values.tolist(), self.ranking.places, strict=True)
        entries = [
            [
                (number, value, (int(place[0]), int(place[1])))
                for number, value, place in zip(*row, strict=True)
                if value > 0 and number != NO_SAMPLE
            ]
            for row in rows
        ]
        every = [place for row in entries for *_, place in row]
        whole, fields = Rectangle(0, self.size[0], 0, self.size[1]), {}
        if every and self.sees_less(self.middle(model, inputs, known)):
            found = known_fields(model, self.call, inputs, every, known)
            fields = {place: field or whole for place, field in zip(every, found, strict=True)}
        return [
            [
                cut(images[number], fields.get(place, whole), evidence=None, value=value, sample=number)
                for number, value, place in row
            ]
            for row in entries
        ]

    def sees_less(self, field: Rectangle) -> bool:
        """Whether a position sees less than the image: its dream is then of the middle alone, and cut.

        Args:
            field: of the position in the middle.
        """
        return field != Rectangle(0, self.size[0], 0, self.size[1])

    def words(self, field: Rectangle, *, samples: bool) -> list[str]:
        """For the caption: to what a dream is cut, and what stands beside it.

        Args:
            field: that the dreams are cut to.
            samples: whether samples stand beside them.
        """
        height, width = field.bottom - field.top, field.right - field.left
        cropped = f"cut to what the middle sees, {times((height, width))} of {times(self.size)} pixels"
        beside = f"beside each: its {STRONGEST} strongest samples"
        return [*[cropped] * self.sees_less(field), "contrast stretched", *[beside] * samples]
