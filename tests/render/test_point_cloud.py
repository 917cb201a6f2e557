"""Points that turn: as a rigid body, nearer ones in front."""

import numpy as np
import pytest

from lightning_viz.render import point_cloud
from lightning_viz.render.parts import ScatterPlot


def test_points_turn_once_around_as_a_rigid_body_nearer_ones_in_front(monkeypatch):
    points = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    frames = []
    monkeypatch.setattr(point_cloud, "lay_out", lambda page: frames.append(next(page.parts(ScatterPlot))) or _Blank)
    monkeypatch.setattr(point_cloud, "animate", lambda tag, frames, **options: None)
    point_cloud.turning_points("t", points, layer="fc", labels=np.arange(30), method="t-SNE", dimension=9)
    centered = points - points.mean(0)
    sizes = np.linalg.norm(centered, axis=1)
    for number in (0, 10, 33):
        rotation = point_cloud._rotation(2 * np.pi * number / 40)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        depth = (centered @ rotation.T)[frames[number].classes, 2]
        assert (np.diff(depth) >= 0).all()  # drawn from far to near
        across = np.linalg.norm(frames[number].points, axis=1)
        np.testing.assert_allclose(across**2 + depth**2, sizes[frames[number].classes] ** 2, rtol=1e-4)
        assert across.max() <= frames[number].extent[1]
    assert len(frames) == 40 and len({frame.extent for frame in frames}) == 1
    with pytest.raises(ValueError, match="points"):
        point_cloud.turning_points("t", points[:, :2], layer="fc", labels=None, method="PCA", dimension=9)


class _Blank:
    image = b""
