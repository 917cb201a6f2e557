"""The view of what excites a layer's channels most, in the whole of the validation data."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lightning_viz.activations.top_k import NO_SAMPLE, Channels, TopK, channel_peaks, choose_channels
from lightning_viz.attribution.gradients import gradient
from lightning_viz.attribution.guided_backprop import deconvolution
from lightning_viz.callbacks.changed_samples import new_among
from lightning_viz.callbacks.display import InputForm, arrange, input_form, shown_inputs
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.layer_readings import Batch, Reading
from lightning_viz.callbacks.probe import displayed_input
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.unit_crops import cut, known_fields
from lightning_viz.callbacks.view import PopulationView
from lightning_viz.costs import PASSES, Facts
from lightning_viz.errors import AttributionWarning, InterceptionError, InvalidArgumentError, NoGradientError, ViewError
from lightning_viz.hooks.batching import choose_batch_size
from lightning_viz.hooks.dependence import images_among, images_of_calls
from lightning_viz.hooks.geometry import Layout, as_maps
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observe import observe
from lightning_viz.hooks.pytree import all_tensors, flatten_like, map_tensors, on_device
from lightning_viz.hooks.receptive_field import Rectangle
from lightning_viz.hooks.targets import unit
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.activations import MOST_CHANNELS, MOST_CROPS, Crop, excitations
from lightning_viz.render.planes import as_images, as_planes
from lightning_viz.render.tiles import stretch

__all__ = ["TopSamples"]

_BATCH = 32  # crops whose maps are found at once
_SIDE = 128  # pixels of a crop at most: its tile is smaller


@dataclass(frozen=True)
class Entry:
    """A place of a ranking.

    Attributes:
        row: of the channel in the ranking.
        value: of the maximum.
        unit: channel, row and column of the maximum in the layer's maps.
        sample: its number.
        inputs: of the sample, a batch of one.
        label: of the sample.
    """

    row: int
    value: float
    unit: tuple[int, int, int]
    sample: int
    inputs: Any
    label: int | None


def entries_of(ranking: TopK, channels: Sequence[int]) -> list[Entry]:
    """The entries of a ranking, channel by channel, strongest first; none that is not above 0.

    Args:
        ranking: that keeps of each sample its inputs and its class.
        channels: whose rows it has.
    """
    return [
        Entry(
            row,
            float(ranking.values[row, rank]),
            (channels[row], int(place[0]), int(place[1])),
            number,
            *ranking.kept[number],
        )
        for row, numbers in enumerate(ranking.samples.tolist())
        for rank, (number, place) in enumerate(zip(numbers, ranking.places[row], strict=True))
        if ranking.values[row, rank] > 0
        and number != NO_SAMPLE
        and number in ranking.kept  # what a failed process held is gone
    ]


def crops_of(
    model: nn.Module,
    call: str,
    entries: Sequence[Entry],
    pixel_space: PixelSpace | None,
    name: Callable[[int], str],
    *,
    places: tuple[int, ...],
    known: dict[Any, Rectangle | None],
    number: int = 0,
    whole: bool = False,
) -> tuple[Mapping[int, list[Crop]], dict[str, str]]:
    """Each entry's crop, by row, and in words how large they are and how their maps were found.

    Args:
        model: in training; left as found.
        call: of the layer.
        entries: of a ranking of the layer's channels.
        pixel_space: of the images.
        name: of a class.
        places: shape of the layer's maps; () where its channels are the scalars of a vector.
        known: receptive fields found before, to which those found now are added.
        number: of the image that the call depends on, where the model takes several.
        whole: keep whole images, of which the crop is a window.
    """
    device = next(iter(model.parameters())).device
    crops: dict[int, Crop] = {}
    method, sizes = "deconvolution", []
    for some in _alike(entries):
        inputs = _together([entries[one].inputs for one in some], device)
        towards, method = _towards_inputs(model, call, inputs, [entries[one].unit for one in some], places, method)
        units = [entries[one].unit[1:] for one in some]
        fields = [None] * len(some) if number else known_fields(model, call, inputs, units, known)
        form = input_form(model, inputs)
        pixels, evidence = _shown(towards, map_tensors(inputs, Tensor.cpu), form, pixel_space, number)
        for place, (one, field, image) in enumerate(zip(some, fields, pixels, strict=True)):
            every = Rectangle(0, image.shape[0], 0, image.shape[1])
            field = field or every
            entry, kept = entries[one], every if whole else field
            top, bottom, left, right = kept
            crops[one] = cut(
                image,
                kept,
                window=tuple(field) if whole else None,
                evidence=None if evidence is None else evidence[place, :, top:bottom, left:right],
                value=entry.value,
                name="" if entry.label is None else name(entry.label),
                sample=entry.sample,
            )
            sizes.append((field[1] - field[0], field[3] - field[2], *image.shape[:2]))
    step = max((max(crop.image.shape[:2]) for crop in crops.values()), default=1) / _SIDE
    rows: defaultdict[int, list[Crop]] = defaultdict(list)
    for one in sorted(crops):
        rows[entries[one].row].append(_smaller(crops[one], step))
    return rows, {"field": _in_words(sizes), "method": method}


def _alike(entries: Sequence[Entry]) -> Iterator[list[int]]:
    """Entries whose inputs are alike in shape, by their numbers, in batches."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        groups[tuple(x.shape for x in all_tensors(entry.inputs))].append(number)
    for shapes, group in groups.items():
        size = min(_BATCH, choose_batch_size(max(shape.numel() for shape in shapes)))
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _together(inputs: Sequence[Any], device: torch.device) -> Any:
    whole = iter([torch.cat(same).to(device) for same in zip(*map(all_tensors, inputs), strict=True)])
    return map_tensors(inputs[0], lambda _: next(whole))


def _towards_inputs(
    model: nn.Module,
    call: str,
    inputs: Any,
    units: Sequence[tuple[int, int, int]],
    places: tuple[int, ...],
    method: str,
) -> tuple[Any, str]:
    """The map of each sample's unit, and by which method: the gradient where no ReLU is there to deconvolve.

    None where no gradient leads from the unit to the inputs.
    """
    if len(places) in (1, 3):  # ranked by their number in a row
        where = [(number, *map(int, np.unravel_index(column, places))) for number, _, column in units]
    else:
        where = [whole if places else whole[:1] for whole in units]
    target = unit(call, torch.tensor(where) if places else torch.tensor(where)[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)  # the picture says it
        if method == "deconvolution":
            try:
                return deconvolution(model, inputs, target), method
            except NoGradientError:
                return None, method
            except InterceptionError:
                pass
        try:
            return gradient(model, inputs, target), "gradient, as no ReLU can be intercepted"
        except NoGradientError:
            return None, method


def _shown(
    towards: Any, inputs: Any, form: InputForm, pixel_space: PixelSpace | None, number: int
) -> tuple[NDArray[np.uint8], NDArray[np.floating] | None]:
    """Inputs as images ``[N, H, W, 3]``, and the maps towards them ``[N, C, H, W]``."""
    shown = images_among(inputs)[number] if number else displayed_input(inputs)
    images = shown_inputs(shown, form, pixel_space)
    if towards is None:
        return as_images(images), None
    place = next(place for place, x in enumerate(all_tensors(inputs)) if x is shown)
    own = flatten_like(towards, inputs)[place]
    gradient = torch.zeros_like(shown) if own is None else own.float().cpu()
    pictures, maps, _ = as_planes(images, arrange(gradient, form).numpy())
    if images.ndim == 3:
        size = pictures.shape[2], pictures.shape[1]
        maps = np.stack([[stretch(plane, size, smooth=False) for plane in planes] for planes in maps])
    return pictures, maps


def _smaller(crop: Crop, step: float) -> Crop:
    """No larger than it will be seen."""
    if step <= 1:
        return crop
    height, width = crop.image.shape[:2]
    size = (max(1, round(width / step)), max(1, round(height / step)))
    image = Image.fromarray(np.ascontiguousarray(crop.image)).resize(size, Image.Resampling.BOX)
    planes = () if crop.evidence is None else crop.evidence
    smaller = [np.asarray(Image.fromarray(plane.copy()).resize(size, Image.Resampling.BOX)) for plane in planes]
    window = crop.window
    if window is not None:
        top, bottom, left, right = (
            round(side * now / before)
            for side, now, before in zip(
                window, (size[1], size[1], size[0], size[0]), (height, height, width, width), strict=True
            )
        )
        window = (top, bottom, left, right)
    return replace(crop, image=np.asarray(image), evidence=np.stack(smaller) if smaller else None, window=window)


def _in_words(sizes: Sequence[tuple[int, int, int, int]]) -> str:
    if not sizes:
        return "none"
    if all(size[:2] == size[2:] for size in sizes):
        return "nothing less than the whole image"
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    whole = max(size[2:] for size in sizes)
    return f"{height} × {width} of {whole[0]} × {whole[1]} pixels"


class TopSamples(PopulationView):
    """For each channel the samples that excite it most, of all validation data (tag ``top_samples/<layer>``).

    Each is cropped to what the channel's maximum depends on, its receptive field, beside the deconvolved map of that
    one activation (Zeiler and Fergus, 2014). The samples come from the validation pass that runs anyway, of all
    processes; the maps from backward passes of the view's own, of those samples alone.

    Args:
        layers: to show; the last convolution if omitted.
        channels: ``"random"`` (picked once, by the probe's seed), ``"first"``, or a list of numbers; at most eight.
        best: samples shown per channel, at most nine.
        whole: show whole images with the receptive field framed (Girshick et al., 2014) rather than cut to it.
    """

    channels: Channels = "random"
    best: int = MOST_CROPS
    whole: bool = False

    kind: ClassVar[str] = "top_samples"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.channels, str) and self.channels not in ("random", "first"):
            raise InvalidArgumentError(f"channels is {self.channels!r}: give 'random', 'first' or a list of numbers")
        if not 1 <= self.best <= MOST_CROPS:
            raise InvalidArgumentError(f"best is {self.best}: give 1 to {MOST_CROPS}")
        self.optional = self.private  # then it is left out, which ends no run

    def check(self, model: nn.Module) -> None:
        """The layers must exist, and samples be shown."""
        super().check(model)
        if self.private:
            raise ViewError("its pictures are samples and nothing else, which private=True keeps out of logs")

    def forget(self) -> None:
        """As before the first look."""
        super().forget()
        self._fields: dict[Any, Any] = {}  # receptive fields found so far: they never change
        self._images: dict[str, int] = {}  # by call, which of several images is meant

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """The maximum of each shown channel's map, and where it is."""
        maps = as_maps(output, layout)
        places = () if maps is None else tuple(maps.shape[2:])
        maps = output.flatten(1)[:, :, None, None] if maps is None else maps
        maps = maps if maps.dim() == 4 else maps.flatten(2)[:, :, None]
        if call not in self.state:
            chosen = choose_channels(maps, self.channels, MOST_CHANNELS, seed=self.probe.seed)
            self.state[call] = {"channels": chosen, "places": places}
        peaks = channel_peaks(maps, self.state[call]["channels"])
        return Reading(peaks.flatten(), partial(self._rank, tuple(peaks.shape), maps.shape[3]))

    def _rank(self, shape: tuple[int, ...], width: int, numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> Any:
        before: TopK = so_far or TopK.empty(shape[1], self.best)
        return before.update(numbers.reshape(shape), width, batch.numbers, batch.sample)

    def passes(self, facts: Facts) -> float:
        """A forward and a backward for each crop: what it sees, and its map."""
        return PASSES * MOST_CHANNELS * min(self.best, facts.samples)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The crops of the strongest samples, and the maps of their maxima."""
        population = snapshot.population
        assert population is not None
        pixel_space = self.pixel_space or snapshot.samples.pixel_space
        inputs, pages = on_device(model, map_tensors(snapshot.samples.inputs, lambda x: x[:1])), {}
        self._images = images_of_calls(model, inputs, list(select_layers(model, self.layers)))
        if any(layer_of_call(call) != call for call in population.by_call()):
            own = observe(model, inputs, layers=self.layers).activations
            if strange := [call for call in population.by_call() if call not in own]:
                raise ViewError(f"call {strange[0]!r} of the step is given other samples than the probe's inputs")
        for call, ranking in population.by_call().items():
            state = self.state.get(call) or self.state[f"{call}:0"]
            entries = entries_of(ranking, state["channels"])
            name = snapshot.samples.name
            places, number = state["places"], self._images.get(call, 0)
            pages[call] = crops_of(
                model,
                call,
                entries,
                pixel_space,
                name,
                places=places,
                known=self._fields,
                number=number,
                whole=self.whole,
            )
        return {"pages": pages}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page per call of each layer."""
        population = snapshot.population
        assert population is not None
        for call, (crops, details) in snapshot.extra["pages"].items():
            state = self.state.get(call) or self.state[f"{call}:0"]
            channels = state["channels"]
            rows = [crops[row] for row in range(len(channels))]
            marks = new_among(state, snapshot.step, [[crop.sample for crop in row] for row in rows])
            if marks is not None:
                rows = [
                    [replace(crop, new=new) for crop, new in zip(*pair, strict=True)]
                    for pair in zip(rows, marks, strict=True)
                ]
            yield DrawTask(
                excitations,
                {
                    "tag": f"{self.kind}/{call}",
                    "crops": rows,
                    "layer": call,
                    "step": snapshot.step,
                    "channels": channels,
                    "population": population.describe(),
                    "notes": (*population.notes, *replace(snapshot, seen=self._images).notes(self.pixel_space, call)),
                    **details,
                },
            )
