"""The samples of a run: of each probe as many as its views, and who else reserves some, need together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.probe_loading import ProbeLoader
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.snapshot import PopulationViewLike, ViewLike
from lightning_viz.callbacks.suitability import named_count
from lightning_viz.hooks.model_state import preserve_state


class RunSamples:
    """Fetches the samples of probes for the views of a run.

    Args:
        run: a training, or the validation pass of a checkpoint.
        views: those that still look.
        watches: whether the view of a name watches the validation pass.
    """

    def __init__(self, run: Run, views: Callable[[], Sequence[ViewLike]], watches: Callable[[str], bool]) -> None:
        self._run, self._views, self._watches = run, views, watches
        self._loader = ProbeLoader(run, self._count, lambda probe: named_count(views(), probe))
        self._reserved: dict[Any, tuple[Probe, int]] = {}

    def reserve(self, probe: Probe, count: int) -> None:
        """Have samples of a probe fetched for what is no view.

        Args:
            probe: which samples.
            count: how many, the head among them.
        """
        self._reserved[probe.key()] = probe, count

    def get(self, probe: Probe) -> Samples:
        """The samples of a probe, fetched so that the run does not notice.

        Args:
            probe: of a view, or reserved.

        Raises:
            NoProbeYetError: the data can only be taken as it passes, and nothing has passed yet.
        """
        with preserve_state(self._run.model), self._run.muted():
            return self.of_look(probe)

    def of_look(self, probe: Probe, batch: Any = None, *, needed: bool = True) -> Samples:
        """The same, within a look.

        Args:
            probe: of a view, or reserved.
            batch: that is about to be trained on, if any.
            needed: whether views cannot do without; if they can, none are returned where there are none.
        """
        same = [view for view in self._views() if view.probe.key() == probe.key()]
        indices = max((view.indices for view in same if view.indices), key=len, default=None)
        given = probe.key() not in self._reserved and all(view.pixel_space is not None for view in same)
        try:
            return self._loader.get(probe, indices, batch, pixel_space_given=given)
        except Exception:
            if needed:
                raise
            return Samples((), None, 0)  # weights are drawn all the same

    def keep(self, batch: Any) -> None:
        """Keep a validation batch that passes, if samples may have to be taken from it."""
        probes = [*(view.probe for view in self._views()), *(probe for probe, _ in self._reserved.values())]
        self._loader.keep(batch, probes)

    def reconsider(self, *, plain: bool) -> None:
        """How a step calls the model has been seen: what was fetched otherwise is fetched anew.

        Args:
            plain: whether the step takes a batch as it was taken before it was seen.
        """
        if self._loader.unlabeled or not plain:
            self._loader.forget()

    def renew(self) -> None:
        """More samples are needed than before: those that can be asked for by number are fetched anew."""
        self._loader.forget(numbered=True)

    def _count(self, probe: Probe) -> int:
        """How many samples of a probe are needed; a view that watches validation needs those that it asks for alone."""
        counts = [probe.samples, *(count for other, count in self._reserved.values() if other.key() == probe.key())]
        for view in self._views():
            if view.probe.key() == probe.key():
                runs = isinstance(view, PopulationViewLike) and not self._watches(view.name)
                own = int(getattr(view, "samples", 0)) if runs else 0
                with preserve_state(self._run.model):
                    counts.append(max(own, view.requirements(self._run.model).population))
        return max(counts)
