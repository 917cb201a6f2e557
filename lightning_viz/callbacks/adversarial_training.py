"""Adversarial training: the one callback that is meant to change training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import numpy as np
from torch import Tensor

from lightning_viz.adversarial.gradient_attacks import pgd
from lightning_viz.adversarial.norms import NORMS
from lightning_viz.adversarial.result import AttackResult
from lightning_viz.callbacks.batch_parts import split_batch
from lightning_viz.callbacks.keyword_arguments import KeywordArguments
from lightning_viz.callbacks.run import Callback, LightningModule, Trainer, TrainerRun, check_forward, unobservable
from lightning_viz.errors import InvalidArgumentError, ViewError, inform
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import map_tensors
from lightning_viz.hooks.shards import is_sharded
from lightning_viz.pixels import PixelSpace, clamp_inputs

__all__ = ["AdversarialTraining"]

_SLACK = 0.05  # of the pixels' range: by how much augmentation may leave it


class AdversarialTraining(KeywordArguments, Callback):
    r"""The defense: a part of every training batch is moved against the network as it is (Madry et al., 2018).

    .. math:: \min_\theta \operatorname{E} \max_{\lVert \delta \rVert \le \epsilon}
        \operatorname{CE}(f_\theta(x + \delta), y)

    Unlike a view, **this changes training**: what ``training_step`` is given, and nothing else. The batch itself, what
    validation sees and all random generators stay as they are. PGD runs in eval mode in the run's precision; a batch
    costs about ``share * (steps + 1)`` more passes. How many of the moved samples the network gets wrong is logged as
    ``adversarial_training/fooled``.

    Samples whose label is below 0 (-100, which the loss ignores) are never moved. Where augmentation has left the
    pixels' range, by 5 % of it at most, the samples to be moved are clamped first.

    Args:
        epsilon: how far a sample is moved, in pixels (8/255, the paper's for CIFAR).
        norm: ``"linf"`` or ``"l2"``.
        steps: of PGD (7, the paper's); 1 is FGSM from a random start (Wong et al., 2020).
        step_size: in pixels; 2.5 epsilon / steps if omitted.
        share: of each batch, its first samples, that is moved, one sample at least; 1 is the paper's, less keeps more
            of the clean accuracy.
        pixel_space: how the model's inputs map to pixels; found in the data's ``Normalize`` transform if omitted.
        seed: of the random starts, which differ from batch to batch and between processes, and are the same after a
            resume.
    """

    epsilon: float = 8 / 255
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 7
    step_size: float | None = None
    share: float = 0.5
    pixel_space: PixelSpace | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.epsilon > 0 or (self.step_size is not None and not self.step_size > 0):
            raise InvalidArgumentError(f"epsilon={self.epsilon}, step_size={self.step_size}: give pixels, more than 0")
        if self.norm not in NORMS:
            raise InvalidArgumentError(f"norm={self.norm!r}: give one of {', '.join(map(repr, NORMS))}")
        if self.steps < 1 or not 0 < self.share <= 1:
            raise InvalidArgumentError(
                f"steps={self.steps}, share={self.share}: give 1 step or more, and a share of 0 to 1"
            )
        if self.seed < 0:
            raise InvalidArgumentError(f"seed={self.seed}: give 0 or more")
        self._undo: Callable[[], None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that no other does the same: it would attack what this one has moved."""
        if stage == "fit" and sum(isinstance(callback, AdversarialTraining) for callback in trainer.callbacks) > 1:
            raise ViewError("two AdversarialTraining among the callbacks: keep one")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stand between the batches and ``training_step``, and say so."""
        reason = unobservable(trainer, pl_module)
        if reason or is_sharded(pl_module):
            reason = reason or "its parameters are sharded, so that all processes would have to attack in step"
            raise ViewError(f"AdversarialTraining cannot attack this model: {reason}")
        _check_signature(pl_module)
        step = pl_module.training_step
        if "dataloader_iter" in inspect.signature(step).parameters:
            raise ViewError("AdversarialTraining needs training_step(batch, ...), not training_step(dataloader_iter)")
        pixel_space = self._space(trainer)

        @wraps(step)
        def moved_step(batch: Any, *args: Any, **options: Any) -> Any:
            if trainer.training:  # validation_step may call it too
                batch = self.moved(trainer, pl_module, batch, pixel_space)
            return step(batch, *args, **options)

        own = pl_module.__dict__.get("training_step")
        pl_module.training_step = moved_step

        def undo() -> None:
            if pl_module.__dict__.get("training_step") is not moved_step:
                return  # somebody else stands between by now: without training this passes on what it is given
            if own is None:
                pl_module.__dict__.pop("training_step", None)
            else:
                pl_module.training_step = own

        self._undo = undo
        inform(
            f"AdversarialTraining changes training: {self.share:.0%} of each batch is moved by {self.steps} steps of "
            f"PGD, {self.norm} {self.epsilon:.3g} in pixels"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step aside."""
        self._step_aside()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Step aside."""
        self._step_aside()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Step aside."""
        self._step_aside()

    def moved(self, trainer: Trainer, model: LightningModule, batch: Any, pixel_space: PixelSpace | None) -> Any:
        """A batch of which a part is moved; the one given stays as it is.

        Args:
            trainer: of the run.
            model: in training.
            batch: on its device.
            pixel_space: how inputs map to pixels; None if they must be pixels.
        """
        inputs, labels = _inputs_and_labels(batch, model)
        rows = (labels >= 0).nonzero().flatten()
        if not len(rows):
            return batch
        rows = rows[: max(1, round(self.share * len(rows)))]
        try:
            samples = clamp_inputs(inputs[rows], pixel_space or PixelSpace(), _SLACK)
            found = self._attack(model, samples, labels[rows], pixel_space, self._seed(trainer, model))
        except (ValueError, TypeError) as error:
            raise ViewError(f"AdversarialTraining cannot attack the batch: {error}") from error
        twins = inputs.index_copy(0, rows, found.inputs.to(inputs))
        fooled = found.fooled.float().mean()
        model.log("adversarial_training/fooled", fooled, on_step=True, on_epoch=False, batch_size=len(rows))
        return map_tensors(batch, lambda tensor: twins if tensor is inputs else tensor)

    def _attack(
        self, model: LightningModule, inputs: Tensor, labels: Tensor, pixel_space: PixelSpace | None, seed: int
    ) -> AttackResult:
        with evaluation_mode(model):  # in eval mode from here, so that nobody is told that it was not
            return pgd(
                model,
                inputs,
                labels,
                epsilon=self.epsilon,
                norm=self.norm,
                steps=self.steps,
                step_size=self.step_size,
                stop_on_success=False,
                pixel_space=pixel_space,
                seed=seed,
                progress=False,
            )

    def _space(self, trainer: Trainer) -> PixelSpace | None:
        """As given, or the data's; None if it has none."""
        return self.pixel_space or PixelSpace.of_transform(getattr(trainer.train_dataloader, "dataset", None))

    def _seed(self, trainer: Trainer, model: LightningModule) -> int:
        """Of a batch: of each anew, also where several make one update, and in each process."""
        batch = TrainerRun(trainer, model).batch
        return int(np.random.SeedSequence((self.seed, batch, trainer.global_rank)).generate_state(1)[0])

    def _step_aside(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def __getstate__(self) -> dict[str, Any]:
        """What lives only in this run stays here; Lightning attaches the module's ``log`` to a callback."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("log", "log_dict")}
        return {**kept, "_undo": None}


def _inputs_and_labels(batch: Any, model: LightningModule) -> tuple[Tensor, Tensor]:
    """What is attacked, and the classes to lead away from."""
    try:
        inputs, labels, *_ = split_batch(batch, model)
    except TypeError:
        inputs, labels = batch, None
    floats = isinstance(inputs, Tensor) and inputs.is_floating_point()
    if floats and labels is not None and len(labels) == len(inputs):
        return inputs, labels
    what = f"{list(inputs.shape)} of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
    raise ViewError(
        "AdversarialTraining needs a batch with one floating-point tensor of inputs and one of labels [N], whole "
        f"numbers: this one has {what} and {'no' if labels is None else len(labels)} labels"
    )


def _check_signature(model: LightningModule) -> None:
    """See that ``forward`` takes the inputs and needs nothing else: an attack has nothing else to give."""
    check_forward(model)
    signature = inspect.signature(model.forward)
    try:
        signature.bind(None)
    except TypeError as error:
        raise ViewError(
            f"AdversarialTraining runs the model on its inputs alone, {type(model).__name__}.forward{signature} does "
            "not take that: make it forward(inputs), with defaults for anything else"
        ) from error
