"""Views that the variable ``LIGHTNING_VIZ`` asks for, of scripts that do not know of them; never raises.

`lightning_viz_callbacks` is what Lightning calls; it imports this only where the variable asks for something.
"""

from __future__ import annotations

from typing import Any

from lightning_viz.callbacks.environment import VARIABLE, asked


def trainer_callbacks() -> list[Any]:
    """The callbacks of a Trainer that the variable asks for."""
    try:
        from lightning_viz.callbacks.applicable_views import AddedViews

        views = _asked_views()
        return [AddedViews(views)] if views else []
    except Exception as error:
        return _nothing(error)


def fabric_callbacks() -> list[Any]:
    """The callbacks of a Fabric that the variable asks for; they look at logarithmic steps, as no epoch may be told."""
    try:
        from lightning_viz.callbacks.fabric_callback import FabricCallback

        views = _asked_views(steps="log")
        callback = FabricCallback(views)
        callback.added = True
        return [callback] if views else []
    except Exception as error:
        return _nothing(error)


def _asked_views(**options: Any) -> list[Any]:
    """The views that the variable asks for; what it names and is no view is said, with the nearest that is one.

    Args:
        **options: of each.
    """
    from lightning_viz.callbacks.applicable_views import default_views
    from lightning_viz.catalogue import views
    from lightning_viz.errors import warn_safely
    from lightning_viz.hints import unknown_name

    if asked() == "1":
        return list(default_views(**options))
    known, kinds = views(), [word.strip().lower().replace("-", "_") for word in asked().split(",") if word.strip()]
    for kind in dict.fromkeys(kind for kind in kinds if kind not in known):
        warn_safely(
            f"{VARIABLE}={asked()}: {unknown_name('view', [kind], known)}; 1 stands for the default, 0 for none"
        )
    chosen = [known[kind].load()(**options) for kind in dict.fromkeys(kinds) if kind in known]
    for view in chosen:
        view.optional = True  # one that does not suit a script's model ends no run
    return chosen


def _nothing(error: Exception) -> list[Any]:
    """No callbacks, with a line that says why, if that much can be imported."""
    try:
        from lightning_viz.errors import warn_safely

        warn_safely(f"{VARIABLE}={asked()} adds no views: {type(error).__name__}: {error}")
    except Exception:
        pass
    return []
