"""What a notebook shows of a result, a view or a picture: short HTML, in which all text is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from html import escape
from io import BytesIO
from typing import Any, TypeVar

from lightning_viz.plain_text import plain_text

LONGEST = 240
"""Characters of a value."""

MOST_ITEMS, MOST_IMAGES, LEAST_SIDE = 8, 8, 64
"""Values of a list, images of a row, pixels of an image's side as it is shown."""

_Class = TypeVar("_Class", bound=type)


def html_table(title: str, rows: Mapping[str, Any], body: str = "") -> str:
    """A title over a table of names and values, and what follows it.

    Args:
        title: text.
        rows: values by name; see `text_of`.
        body: HTML.

    >>> html_table("A <b>", {"epsilon": 0.25}).replace(' style="text-align:left"', "")
    '<div><b>A &lt;b&gt;</b><table><tr><th>epsilon</th><td>0.25</td></tr></table></div>'
    """
    left = ' style="text-align:left"'  # notebooks and sites would have it at the right
    cells = "".join(
        f"<tr><th{left}>{_safe(name)}</th><td{left}>{_safe(text_of(value))}</td></tr>" for name, value in rows.items()
    )
    return f"<div><b>{_safe(title)}</b>{f'<table>{cells}</table>' if cells else ''}{body}</div>"


def text_of(value: Any) -> str:
    """A value in a few words: a small array's values, a large one's shape and range, the first items of a collection.

    Args:
        value: anything.

    >>> text_of((1, 2.5)), text_of({"conv": "ReLU"}), text_of(None)
    ('1, 2.5', 'conv: ReLU', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if _is_array(value):
        return _array_text(_numpy(value))
    if isinstance(value, Mapping):
        return _listed([f"{name}: {text_of(item)}" for name, item in [*value.items()][:MOST_ITEMS]], len(value))
    if type(value) in (list, tuple, set, frozenset):
        return _listed([text_of(item) for item in [*value][:MOST_ITEMS]], len(value))
    text = value if isinstance(value, str) else _repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def image_row(name: str, images: Any) -> str:
    """The first images of a batch side by side, as HTML; nothing of what is no batch of images.

    Args:
        name: of the images, for those who do not see them.
        images: pixels ``[N, C, H, W]`` in [0, 1] with one or three channels; of more dimensions the last of the leading
            ones is taken.
    """
    import numpy as np
    from PIL import Image

    pixels = _numpy(images)
    while pixels.ndim > 4 and len(pixels):
        pixels = pixels[-1]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.size:
        return ""
    shown = np.nan_to_num(pixels[:MOST_IMAGES].astype(np.float64), nan=0.5).clip(0, 1)
    shown = np.pad(shown, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)  # a white line between two
    row = np.concatenate([*shown], axis=2)[:, :, :-1].transpose(1, 2, 0).repeat(3 // pixels.shape[1], 2)
    file = BytesIO()
    Image.fromarray((row * 255).round().astype(np.uint8)).save(file, "PNG")
    height = max(LEAST_SIDE, pixels.shape[2])
    said = f"{name}: {len(shown)} of {len(pixels)}"
    return f"<div>{_safe(said)}</div>{picture(file.getvalue(), 'png', said, height=height)}"


def picture(image: bytes, kind: str, said: str, *, height: int | None = None) -> str:
    """An encoded image as HTML that needs no file.

    Args:
        image: the bytes.
        kind: ``"png"`` or ``"gif"``.
        said: what is in it, for those who do not see it.
        height: in pixels; its own if omitted.
    """
    size = "" if height is None else f"height:{height}px;"
    style = f"{size}max-width:100%;{'image-rendering:pixelated' if height else ''}"
    return f'<img alt="{_safe(said)}" style="{style}" src="data:image/{kind};base64,{b64encode(image).decode()}">'


def html_display(*names: str, images: Sequence[str] = ()) -> Callable[[_Class], _Class]:
    """Decorator of a dataclass: gives it ``_repr_html_``, a table of attributes over rows of images.

    Args:
        names: of the attributes; all fields but the images if omitted.
        images: names of attributes that hold pixels, see `image_row`.
    """

    def decorate(cls: _Class) -> _Class:
        def _repr_html_(self: Any) -> str:
            chosen = names or [part.name for part in fields(self) if part.repr and part.name not in images]
            rows = {name.replace("_", " "): getattr(self, name) for name in chosen}
            return html_table(
                type(self).__name__, rows, "".join(image_row(name, getattr(self, name)) for name in images)
            )

        cls._repr_html_ = _repr_html_  # type: ignore[attr-defined]
        return cls

    return decorate


def _safe(text: str) -> str:
    return escape(plain_text(text))


def _repr(value: Any) -> str:
    """Of an object whose ``repr`` is none of its own, or is long, the name of its class."""
    text = repr(value)
    return text if len(text) <= LONGEST and " object at 0x" not in text else type(value).__name__


def _listed(words: list[str], count: int) -> str:
    more = f", and {count - len(words)} more" if count > len(words) else ""
    return f"{', '.join(words)}{more}" or "none"


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _numpy(value: Any) -> Any:
    """An array or a tensor of any device and precision as a NumPy array."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
    return np.asarray(value)


def _array_text(values: Any) -> str:
    import numpy as np

    if values.dtype == bool:
        return f"{int(values.sum())} of {values.size}" if values.ndim else str(bool(values))
    if values.size <= MOST_ITEMS and values.ndim <= 1:
        return ", ".join(f"{value:.4g}" for value in np.atleast_1d(values).tolist()) or "none"
    shape = f"[{', '.join(map(str, values.shape))}]"
    finite = values[np.isfinite(values)]
    extent = f" of {finite.min():.4g} to {finite.max():.4g}" if finite.size else ""
    missing = values.size - finite.size
    return f"{shape}{extent}{f', {missing} not finite' if missing else ''}"
