"""The view of how little changes the network's mind, as it learns."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_viz.adversarial.norms import L2, NORMS, Norm
from lightning_viz.adversarial.result import AttackResult
from lightning_viz.adversarial.sign_image import FgsmTerms, fgsm_terms
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.fixed_scale import fixed_scale
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import method, methods
from lightning_viz.catalogue_types import AttackMethod
from lightning_viz.costs import Facts
from lightning_viz.errors import AttackWarning, InvalidArgumentError, TargetError, ViewError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import image_of, on_device
from lightning_viz.pixels import PixelSpace, clamp_inputs
from lightning_viz.render.attacks import sign_sums, twins
from lightning_viz.render.text import number, percent
from lightning_viz.render.tiles import Verdict, neutral, to_rgb

__all__ = ["Adversarial"]

_SLACK = 0.02  # of the pixels' range: by how much augmentation may leave it


class Adversarial(View):
    """How little changes the network's mind (tag ``adversarial/<method>``).

    Samples of the probe, what an attack made of them, and the difference magnified. It leads away from what the network
    says of a sample, right or wrong. Plotted too: the share that it turned, and of those the median length of what it
    took, in pixels and by the length of the sample (``adversarial/<method>/fooled``, ``/length``, ``/relative``).
    FGSM has a second page (``adversarial/fgsm/sum``), after the figure of Goodfellow et al. (2015): the sample, epsilon
    times the sign of its gradient, and their sum, each with its class and confidence. Samples that augmentation has
    moved out of the pixels' range, by 2 % of it at most, are clamped and judged so.

    Args:
        method: ``"deepfool"``, the shortest way over the nearest boundary (Moosavi-Dezfooli et al., 2016); ``"fab"``,
            shorter and longer to find (Croce and Hein, 2020); within epsilon ``"pgd"`` (Madry et al., 2018), ``"apgd"``
            (Croce and Hein, 2020) and ``"fgsm"`` (Goodfellow et al., 2015); ``"gradient_ascent"``, in steps of length
            0.1, without a bound. Attacks of thousands of passes, such as AutoAttack, are commands only.
        norm: ``"l2"`` or ``"linf"``, of the methods that have a choice; if omitted L2 of DeepFool and L-inf of the
            others.
        epsilon: of PGD, APGD and FGSM, in pixels (8/255, usual for L-inf; within L2 an image needs far more).
        attack_steps: at most; FGSM takes one, FAB these for each of up to nine classes, of three passes each.
    """

    method: AttackMethod = "deepfool"
    norm: Literal["l2", "linf"] | None = None
    epsilon: float = 8 / 255
    attack_steps: int = 20

    kind: ClassVar[str] = "adversarial"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in (known := methods(view=self.kind)):
            offline = getattr(methods("attack").get(self.method), "study", "")
            many = f", which takes thousands of passes of a sample: run lightning-viz attack {self.method}, or"
            raise InvalidArgumentError(f"method is {self.method!r}{many if offline else ':'} give one of {list(known)}")
        if self.norm not in (None, *NORMS):
            raise InvalidArgumentError(
                f"norm is {self.norm!r}: give one of {list(NORMS)}, or None for the method's own"
            )
        if self.attack_steps < 1 or not self.epsilon > 0:
            raise InvalidArgumentError(
                f"attack_steps is {self.attack_steps}, epsilon {self.epsilon}: give 1 or more, and pixels above 0"
            )

    def requirements(self, model: nn.Module) -> Requirements:
        """The inputs, and what the network says of them."""
        return Requirements()

    def passes(self, facts: Facts) -> float:
        """Those of the attack on each sample."""
        return facts.head * method(self.method).passes(steps=self.attack_steps) if facts.classes else 0.0

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The attack."""
        inputs, outputs = snapshot.observation.inputs, snapshot.observation.outputs
        if not isinstance(inputs, Tensor):
            raise ViewError("the model takes several inputs: an attack moves a single one")
        if snapshot.input_form not in ("image", "vector"):
            raise ViewError(f"the model takes a {snapshot.input_form}: adversarial twins are drawn of images")
        meaning = snapshot.observation.meaning
        if outputs is None or snapshot.probabilities is None:
            shape = "no scores" if outputs is None else list(outputs.shape)
            dense = meaning is not None and meaning.kind in ("dense", "tokens")
            what = "scores of classes at each place" if dense else "which are not of classes as far as is known"
            raise TargetError(f"the model returns {shape}, {what}: an attack needs a classifier")
        with evaluation_mode(model), warnings.catch_warnings():
            warnings.simplefilter("ignore", AttackWarning)  # the picture says it
            return self._attack(model, on_device(model, inputs), snapshot)

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page; differences are magnified alike at every look, while they fit."""
        found: AttackResult = snapshot.extra["found"]
        record, fooled, tag = found.record, found.fooled.cpu(), f"{self.kind}/{self.method}"
        largest_counts = self._norm is not L2
        lengths = (record.linf if largest_counts else record.l2)[-1].cpu()
        relative = record.relative[-1].cpu()
        low, high = found.pixel_space.bounds
        differences = (_as_image(found.perturbations) / (high - low)).float().cpu().numpy()
        scale = fixed_scale(differences, snapshot.step, self.state.get("scale"))
        self.state["scale"], largest = scale.state, scale.limits[1]
        unit, some = "largest change" if largest_counts else "length", bool(fooled.any())
        pictures = {
            "images": _shown(found.original, found.pixel_space),
            "twins": _shown(found.pixels, found.pixel_space),
        }
        arguments = {
            "tag": tag,
            **{name: neutral(shown) if self.private else shown for name, shown in pictures.items()},
            "differences": differences,
            "before": _verdicts(snapshot, found, 0),
            "after": _verdicts(snapshot, found, -1),
            "norms": [f"{percent(share, 1)} %" for share in relative.tolist()],
            "attack": method(self.method).title + (f", {self._norm.name}" if "norm" in self._options() else ""),
            "norm": "its L2 norm over its image's",
            "step": snapshot.step,
            "magnify": 0.5 / largest if largest > 0 else None,
            "details": [
                f"median {unit} of a change {number(float(lengths[fooled].median())) if some else '–'}, pixels 0 to 1"
            ],
            "notes": (*scale.warnings, *snapshot.notes(self.pixel_space)),
        }
        scalars = {f"{tag}/fooled": float(fooled.float().mean())}
        for name, values in (("length", lengths), ("relative", relative)) if some else ():
            scalars[f"{tag}/{name}"] = float(values[fooled].median())
        yield DrawTask(twins, arguments, scalars=scalars)
        if "terms" in snapshot.extra:
            yield DrawTask(sign_sums, self._sum(snapshot, snapshot.extra["terms"]))

    def _sum(self, snapshot: Snapshot, terms: FgsmTerms) -> Mapping[str, Any]:
        """What the page of FGSM as a sum is drawn from."""
        result, (low, high) = terms.result, terms.result.pixel_space.bounds
        pictures = {"images": result.original, "signs": terms.images, "sums": result.pixels}
        shown = {name: _shown(pixels, result.pixel_space) for name, pixels in pictures.items()}
        said = zip(terms.classes.tolist(), terms.confidences.tolist(), strict=True)
        return {
            "tag": f"{self.kind}/{self.method}/sum",
            **{name: neutral(image) if self.private else image for name, image in shown.items()},
            "before": _verdicts(snapshot, result, 0),
            "alone": [Verdict(None, snapshot.samples.name(one), sure) for one, sure in said],
            "after": _verdicts(snapshot, result, -1),
            "epsilon": f"{number(255 * self.epsilon / (high - low))}/255",
            "step": snapshot.step,
            "notes": snapshot.notes(self.pixel_space),
        }

    @property
    def _norm(self) -> Norm:
        """The norm in which perturbations are measured: the chosen one if the method has a choice, else its usual."""
        usual = method(self.method).unit
        return NORMS[(self.norm or usual) if "norm" in self._options() else usual]

    def _options(self) -> Mapping[str, inspect.Parameter]:
        """What the attack takes."""
        return inspect.signature(method(self.method).load()).parameters

    def _space(self, inputs: Tensor, snapshot: Snapshot) -> PixelSpace:
        """As given, or the images'; of what is no image the samples' range counts as the pixels'."""
        if self.pixel_space is None and image_of(inputs) is None:
            return PixelSpace.guess(inputs)
        return self.pixel_space or snapshot.samples.pixel_space or PixelSpace()

    def _attack(self, model: nn.Module, inputs: Tensor, snapshot: Snapshot) -> Mapping[str, Any]:
        """The attack's result; of FGSM the terms of its sum, too."""
        pixel_space = self._space(inputs, snapshot)
        inputs, norm = clamp_inputs(inputs, pixel_space, _SLACK), self._norm
        own = {"epsilon": self.epsilon, "steps": self.attack_steps, "norm": norm, "normalize": norm}
        run = {"seed": self.probe.seed, "pixel_space": pixel_space, "progress": False}
        taken = self._options()
        options: dict[str, Any] = {name: value for name, value in {**own, **run}.items() if name in taken}
        if self.method == "fgsm":
            terms = fgsm_terms(model, inputs, **options)
            return {"found": terms.result, "terms": terms}
        return {"found": method(self.method).load()(model, inputs, **options)}


def _verdicts(snapshot: Snapshot, found: AttackResult, step: int) -> list[Verdict]:
    """What the network says of the samples that were attacked, after a step; the truths are the probe's."""
    labels, name, count = (
        snapshot.observation.labels,
        snapshot.samples.name,
        len(found.labels),
    )  # of the head of the probe
    known = [-1] * count if labels is None else labels[:count].tolist()
    truths = [name(label) if label >= 0 else None for label in known]
    said = zip(truths, found.record.classes[step].tolist(), found.record.confidences[step].tolist(), strict=True)
    return [Verdict(truth, name(one), sure if math.isfinite(sure) else None) for truth, one, sure in said]


def _as_image(pixels: Tensor) -> Tensor:
    """``[N, C, H, W]``; of what is no image a strip of its values."""
    return pixels if pixels.dim() == 4 else pixels.flatten(1)[:, None, None, :]


def _shown(pixels: Tensor, pixel_space: PixelSpace) -> Any:
    """Pixels as a page takes them, ``[N, H, W, 3]``."""
    low, high = pixel_space.bounds
    return to_rgb(((_as_image(pixels) - low) / (high - low)).float().cpu().numpy())
