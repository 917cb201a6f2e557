"""Views of a loop that Fabric runs, as one of Fabric's callbacks."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_viz.callbacks.loop_run import unwrapped
from lightning_viz.callbacks.loop_watch import LoopWatch, is_watched, watch
from lightning_viz.callbacks.notices import harmless
from lightning_viz.callbacks.view import View

__all__ = ["FabricCallback"]


class FabricCallback:
    """Views in a loop of Fabric: ``Fabric(callbacks=[FabricCallback(data=held_out)])``.

    The first module that `Fabric.setup` is given, and that is trained, is watched. Fabric tells of updates by itself.
    Where the loop calls ``fabric.call("on_train_batch_start", batch, batch_idx)``, ``"on_train_batch_end"`` and
    ``"on_train_epoch_end"``, as Lightning's Trainer does, batches and epochs are seen, too; ``"on_train_end"`` or
    ``"on_fit_end"`` ends watching, as does the end of the program.

    Args:
        views: that look; ``default_views(steps="log")`` if omitted, as a loop may tell of no epoch.
        data: whose samples are watched, see `watch`; the first batch that passes if omitted.
        logdir: folder of TensorBoard's events, where Fabric has no logger that takes images.
        logger: takes the pictures; Fabric's loggers if omitted.
        batches_per_epoch: by which an epoch's last update is known beforehand, so that its size is measured; what the
            first epoch had if omitted.
    """

    def __init__(
        self,
        views: Sequence[View] | None = None,
        *,
        data: Any = None,
        logdir: str | Path | None = None,
        logger: Any = None,
        batches_per_epoch: int | None = None,
    ) -> None:
        self._count, self._passed = batches_per_epoch, 0
        self._views, self._data, self._logdir, self._logger = views, data, logdir, logger
        self.added = False
        """Whether the environment has added it: a loop that is watched otherwise has its views once."""
        self._fabric: Any = None
        self._module: nn.Module | None = None
        self._hook: Any = None
        self._watch: LoopWatch | None = None
        self._counted: Any = None  # the optimizer whose updates are counted
        self._over = False

    def on_after_setup(self, fabric: Any, module: nn.Module) -> None:
        """Fabric has set a module up: it is watched from its first forward pass in training on."""
        trained = any(parameter.requires_grad for parameter in module.parameters())
        if self._module is None and trained and not self._over:
            others = [one for one in fabric._callbacks if isinstance(one, FabricCallback) and one is not self]
            if self.added and others:
                return
            self._fabric, self._module = fabric, module
            self._hook = module.register_forward_pre_hook(self._first_forward, with_kwargs=True)

    def _first_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            with harmless("the loop is not watched"):
                self._begin(args or kwargs)

    def _begin(self, batch: Any) -> None:
        """Watch, and look at the weights before the first update."""
        if self._hook is None or self._module is None:
            return
        self._hook.remove()
        self._hook = None
        if self.added and is_watched(unwrapped(self._module)[0]):
            return
        from lightning_viz.callbacks.applicable_views import default_views

        self._watch = watch(
            self._module,
            data=self._data,
            views=default_views(steps="log") if self._views is None else self._views,
            logdir=self._logdir,
            logger=(list(self._fabric.loggers) or None) if self._logger is None else self._logger,
        )
        atexit.register(self._at_exit)
        self._watch.begin(batch)

    def on_after_optimizer_step(self, strategy: Any, optimizer: Any) -> None:
        """The weights have been updated; of several optimizers the first counts."""
        if self._watch is None:
            return
        self._counted = optimizer if self._counted is None else self._counted
        if optimizer not in self._watch.run.optimizers:
            self._watch.run.optimizers.append(optimizer)
        if optimizer is self._counted:
            self._watch.step()

    def on_train_batch_start(self, batch: Any, batch_idx: int = 0) -> None:
        """Look, if due; see how the first step calls the model."""
        self._begin(batch)
        self._passed += 1
        if self._watch is not None:
            self._watch.run.ends_epoch = self._passed == self._count
            self._watch.begin_batch(batch, reads=batch)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """The batch has passed."""
        if self._watch is not None:
            self._watch.end_batch()

    def on_train_epoch_end(self, *_: Any, **__: Any) -> None:
        """Look, if due."""
        self._count, self._passed = self._count or self._passed or None, 0
        if self._watch is not None:
            self._watch.end_epoch()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Look for the last time, and wait for what is still being drawn."""
        self._over = True
        ended, self._watch = self._watch, None
        if ended is not None:
            atexit.unregister(self._at_exit)
            ended.close()

    def on_fit_end(self, *_: Any, **__: Any) -> None:
        """Likewise."""
        self.on_train_end()

    def on_exception(self, *_: Any, **__: Any) -> None:
        """Leave at once."""
        ended, self._watch = self._watch, None
        if ended is not None:
            atexit.unregister(self._at_exit)
            ended.interrupt()

    def _at_exit(self) -> None:
        """The program ends: after an error nothing is waited for."""
        failed = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        self.on_exception() if failed is not None else self.on_train_end()
