"""Embeddings go on from the step before, or from the layer before, and are not computed again for what is as it was."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ortho_group
from sklearn.datasets import load_digits

from lightning_viz.callbacks import draw_embeddings
from lightning_viz.callbacks.draw_embeddings import draw_layer, draw_layers
from lightning_viz.embedding import trustworthiness
from lightning_viz.render.parts import LayerPlot, ScatterPlot, Text, Tile


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture
def begun(monkeypatch):
    """With which points each t-SNE began."""
    starts, tsne = [], draw_embeddings.tsne

    def noted(*arguments, **options):
        starts.append(options.get("previous"))
        return tsne(*arguments, **options)

    monkeypatch.setattr(draw_embeddings, "tsne", noted)
    return starts


def embed(vectors, labels, step=0, layer="conv", **options):
    return draw_layer(
        f"embedding/{layer}",
        np.asarray(vectors, dtype=np.float32),
        layer=layer,
        dimension=vectors.shape[1],
        step=step,
        labels=labels,
        class_names=None,
        images=None,
        perplexity=30.0,
        seed=0,
        **{"engine": "opentsne", "pages": ("scatter",), "projector": False, **options},
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
    assert any("openTSNE" in note for note in second.pictures[0].notes)
    assert not first.pictures[0].notes or "openTSNE" not in str(first.pictures[0].notes)


# The card of all layers.


def card(memories, step=0, flaws=None, **options):
    """Of layers named as they are remembered."""
    layers = [(name, 64, (flaws or {}).get(name, "")) for name in memories]
    given = {"labels": np.arange(150) % 3, "class_names": None, "left_out": (), "perplexity": 30.0}
    return draw_layers(
        "embedding/every_layer", layers, step=step, collected=tuple(memories.values()), **{**given, **options}
    )


def panels(result):
    """Layer to scatter."""
    texts = [text.lines[0] for text in result.pictures[0].parts(Text)]
    return dict(zip(texts[0::2], result.pictures[0].parts(ScatterPlot), strict=False))


@pytest.fixture(scope="module")
def two_layers(digits):
    images, labels = digits[0][:150], digits[1][:150]
    first = embed(images, labels)
    return {"conv": first.memory, "fc": embed(images**2, labels, layer="fc", before=first.memory).memory}


def test_the_card_shows_what_the_layers_remember_in_views_that_hold(two_layers):
    first = card(two_layers)
    assert [round(value, 3) for value in first.memory["history"][0][1]] == [
        round(layer["numbers"]["knn_accuracy"], 3) for layer in two_layers.values()
    ]
    for name, plot in panels(first).items():
        assert plot.extent == two_layers[name]["extent"]
        assert np.square(plot.points).sum(1).mean() == pytest.approx(1, rel=1e-3)
    later = {name: {**layer, "step": 9, "points": 3 * layer["points"]} for name, layer in two_layers.items()}
    second = card(later, step=9, memory=first.memory)
    assert [step for step, _ in second.memory["history"]] == [0, 9]
    for name, plot in panels(second).items():
        assert np.allclose(plot.points, panels(first)[name].points, atol=1e-5)
    (curves,) = second.pictures[0].parts(LayerPlot)
    assert curves.curves.shape == (2, 2) and (curves.curves[0] == curves.curves[1]).all()


def test_a_layer_that_was_not_drawn_at_this_step_is_not_passed_off_as_of_it(two_layers):
    stale = {**two_layers, "fc": {**two_layers["fc"], "step": 3}}
    result = card({"conv": {**two_layers["conv"], "step": 9}, "fc": stale["fc"]}, step=9)
    (tile,) = result.pictures[0].parts(Tile)
    assert (tile.layer, tile.flaw) == ("fc", "not drawn")
    assert result.memory["history"][0][1][1] is None


def test_a_layer_of_nan_is_a_hatched_panel_and_the_others_stay(two_layers):
    result = card(two_layers, flaws={"fc": "NaN or infinity in 3 of 150 samples"})
    (tile,) = result.pictures[0].parts(Tile)
    assert tile.flaw == "NaN or infinity in 3 of 150 samples"
    assert len(list(result.pictures[0].parts(ScatterPlot))) == 1


def test_a_view_that_grew_is_said_at_that_step_alone(digits, two_layers):
    images, labels = digits[0][:150], digits[1][:150]
    narrow = {**two_layers["conv"], "extent": (-0.5, 0.5, -0.5, 0.5)}
    grown = embed(images, labels, step=9, memory=narrow)
    assert grown.memory["extent"][1] > 1 and grown.memory["fixed"] == 9
    result = card({"conv": grown.memory}, step=9)
    assert result.pictures[0].notes == ("wider view of conv than at the step before",)
    assert "views fixed since step 9" in result.pictures[0].details
    after = embed(images, labels, step=18, memory=grown.memory)
    result = card({"conv": after.memory}, step=18)
    assert not result.pictures[0].notes and "views fixed since step 9" in result.pictures[0].details


def test_a_comparison_stays_while_the_layer_changes_and_says_when_its_views_do(digits):
    images, labels = digits[0][:150], digits[1][:150]
    noise, memory, looks = np.random.default_rng(0).normal(size=images.shape), None, []
    for step, vectors in enumerate((images, 3 * (images + noise), -images - 2 * noise, images)):
        if step == 3:
            memory = {**memory, "plane_view": {**memory["plane_view"], "extent": (-0.1, 0.1, -0.1, 0.1)}}
        drawn = embed(vectors, labels, step=step, memory=memory, pages=("comparison",))
        memory = drawn.memory
        looks.append(drawn.pictures[0])
    views = [[plot.extent for plot in page.parts(ScatterPlot)] for page in looks]
    assert views[0] == views[1] == views[2]
    assert views[3][0] == views[3][2] == views[0][0] and views[3][1][1] > 1 > 0.1
    lines = [[len(text.lines) for text in page.parts(Text)] for page in looks]
    assert lines == [lines[0]] * 4
    assert [page.notes for page in looks] == [(), (), (), ("wider view of PCA than at the step before",)]
    assert ["views fixed since step 0" in page.details for page in looks] == [True, True, True, False]
    before, after = ([plot.points for plot in page.parts(ScatterPlot)][1] for page in looks[:2])
    assert np.linalg.norm(after - before, axis=1).mean() < 0.5  # aligned, whatever signs components have


def test_few_samples_are_pca_which_one_line_says(digits):
    images, labels = digits[0][:8], digits[1][:8]
    first = embed(images, labels)
    second = embed(images[:, :9], labels, layer="fc", before=first.memory)
    result = card({"conv": first.memory, "fc": second.memory}, labels=labels)
    assert result.pictures[0].description.count("PCA") == 1
    assert len(panels(result)) == 2 and not result.pictures[0].notes
    assert not list(result.pictures[0].parts(LayerPlot))
    assert not any("k-NN" in line for text in result.pictures[0].parts(Text) for line in text.lines)


def test_points_in_three_dimensions_turn_and_are_not_embedded_again(digits, begun):
    images, labels = digits[0][:120], digits[1][:120]
    first = embed(images, labels, pages=("turning",))
    assert len(begun) == 2 and first.memory["space"].shape == (120, 3)  # in the plane, and in space
    second = embed(images, labels, step=9, memory=first.memory, pages=("turning",))
    assert len(begun) == 2 and second.memory["space"] is first.memory["space"]
    (picture,) = second.pictures
    assert picture.tag == "embedding/conv/turning"
    with Image.open(BytesIO(picture.image)) as animation:
        assert animation.n_frames == 40
        animation.seek(39)
        assert animation.info["duration"] < 200  # it turns on without a pause
    third = embed(images, labels, step=18, memory=second.memory, pages=("turning",), projector=True)
    tags = {projection.tag: projection.vectors.splitlines() for projection in third.projections}
    assert list(tags) == ["embedding/conv", "embedding/conv/turning"]
    assert [len(rows[0].split()) for rows in tags.values()] == [50, 3]
