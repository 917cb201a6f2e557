"""Embeddings go on from the step before, or from the layer before, and are not computed again for what is as it was."""

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import load_digits

from lightning_viz.callbacks import continuity
from lightning_viz.callbacks.continuity import draw_embedding
from lightning_viz.embedding import trustworthiness


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture
def begun(monkeypatch):
    """With which points each t-SNE began."""
    starts, tsne = [], continuity.tsne

    def noted(*arguments, **options):
        starts.append(options.get("previous"))
        return tsne(*arguments, **options)

    monkeypatch.setattr(continuity, "tsne", noted)
    return starts


def embed(vectors, labels, step=0, layer="conv", **options):
    return draw_embedding(
        f"embedding/{layer}",
        np.asarray(vectors, dtype=np.float32),
        layer=layer,
        dimension=vectors.shape[1],
        step=step,
        labels=labels,
        class_names=None,
        images=None,
        full=False,
        projector=False,
        perplexity=30.0,
        seed=0,
        **{"engine": "opentsne", **options},
    )


def test_vectors_that_are_as_they_were_are_not_embedded_again(digits, begun):
    images, labels = digits[0][:150], digits[1][:150]
    first = embed(images, labels)
    second = embed(images, labels, step=9, memory=first.memory)
    assert len(begun) == 1
    assert np.array_equal(first.memory["points"], second.memory["points"]) and first.scalars == second.scalars
    embed(images + 0.1 * images[::-1], labels, step=18, memory=second.memory)
    assert len(begun) == 2 and begun[1] is second.memory["points"]


def test_a_layer_begins_at_the_points_of_the_layer_before_it(digits, begun):
    images, labels = digits[0][:300], digits[1][:300]
    first = embed(images, labels)
    turned = embed(images @ ortho_group.rvs(64, random_state=0), labels, layer="turned", before=first.memory)
    assert begun[1] is first.memory["points"] and len(begun) == 2
    moved = np.linalg.norm(turned.memory["points"] - first.memory["points"], axis=1).mean()
    assert moved < 0.1 * first.memory["points"].std()
    assert "begun at the points of conv" in turned.pictures[0].details[-1]
    assert "begun cold" in first.pictures[0].details[-1]


def test_a_start_that_cannot_be_trusted_is_given_up_for_a_cold_one(digits, begun):
    images, labels = digits[0][:300], digits[1][:300]
    mixed = embed(images[np.random.default_rng(0).permutation(300)], labels, layer="mixed")
    result = embed(images, labels, before=mixed.memory)
    assert [start is None for start in begun] == [True, False, True]
    assert "begun cold" in result.pictures[0].details[-1]
    assert trustworthiness(images, result.memory["points"]) > 0.95
    embed(images + 1, labels, step=9, memory=result.memory, before=mixed.memory)  # decided once
    assert begun[-1] is result.memory["points"]


def test_another_engine_than_before_is_said(digits):
    images, labels = digits[0][:60], digits[1][:60]
    first = embed(images, labels)
    second = embed(images[:, ::-1], labels, step=9, memory=first.memory, engine="sklearn")
    assert any("opentsne" in note for note in second.pictures[0].notes)
    assert not first.pictures[0].notes or "opentsne" not in str(first.pictures[0].notes)
