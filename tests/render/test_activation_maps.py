from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lightning_viz.render.activations import activation_maps
from lightning_viz.render.attribution_maps import attribution_maps, class_columns, head_columns
from lightning_viz.render.layout import draw
from lightning_viz.render.page import lay_out
from lightning_viz.render.parts import Bar, ColorBar, MapTile, Text, Tile
from lightning_viz.render.text import number
from lightning_viz.render.tiles import Verdict, overlay

from .pixels import body, decoded, fits, texts

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 17, 23, 3)).astype(np.uint8)


def activations(maps, limits=None, **options):
    channels = range(maps.shape[1])
    limits = [limits] * len(channels) if isinstance(limits, tuple) else limits
    return activation_maps(
        "t", IMAGES[: len(maps)], maps, layer="l", step=1230, channels=channels, limits=limits, **options
    )


def cam(heat, **options):
    settings = {"method": "Grad-CAM", "display": "heat", "layer": "layer4", "unit": "logits", **options}
    return saliency(heat[:, None], **settings)


def saliency(gradient, **options):
    settings = {"method": "Gradient", "step": 5, "target": "class cat", **options}
    return attribution_maps("t", IMAGES[: len(gradient)], gradient, **settings)


def test_heat_leaves_the_image_itself_where_there_is_none():
    heat = np.zeros((8, 8))
    heat[6, 6] = 1
    image = IMAGES[0]
    gray = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    shown = np.asarray(overlay(image, heat, (23, 17)))
    assert (shown[:8, :12] == gray[:8, :12]).all()
    assert np.ptp(shown[13, 18].astype(int)) > 50


def test_maps_of_a_page_have_one_scale_and_each_its_own_maximum_beside_it():
    heat = RNG.uniform(0.5, 1, size=(2, 6, 6))
    heat /= heat.max(axis=(1, 2), keepdims=True)
    page = cam(heat * np.array([0.14, 0.005])[:, None, None], verdicts=[Verdict("cat", "cat", 0.25)] * 2)
    maps = list(page.parts(MapTile))
    assert [tile.value for tile in maps] == [pytest.approx(0.14)] * 2
    words = [line for text in page.parts(Text) for line in text.lines]
    assert "0.14" in words and "0.005" in words
    (bar,) = page.parts(ColorBar)
    assert (bar.low, bar.high, bar.label) == ("0", "0.14", "logits")
    assert [part.share for part in page.parts(Bar)] == [0.25, 0.25]
    seen, bare = (
        [np.asarray(draw(replace(tile, values=factor * tile.values)), int) for tile in maps] for factor in (1, 0)
    )
    strong, weak = (np.abs(one - other).mean() for one, other in zip(seen, bare, strict=True))
    assert weak < 0.1 * strong


def squares(count, name="cat", other="dog", **options):
    images = RNG.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    settings = {"method": "Grad-CAM", "target": "each sample's true class", "display": "heat", "layer": "conv2"}
    settings |= {"step": 1230, "unit": "logits", "details": [f"{count} of 16 samples"]}
    verdicts = [Verdict(name, other, 0.5, name)] * count
    return attribution_maps(
        "t", images, RNG.uniform(size=(count, 1, 6, 6)), verdicts=verdicts, **{**settings, **options}
    )


@pytest.mark.parametrize("options", [{}, {"display": "sum", "layer": "", "unit": "logits per unit of input"}])
def test_eight_samples_are_large_on_the_card_and_stand_once_each(options):
    page = squares(8, **options)
    inputs = [tile for tile in page.parts(Tile) if not isinstance(tile, MapTile)]
    assert [tile.sample for tile in inputs] == list(range(8)) and min(inputs[0].size) >= 155
    assert fits(page, 900)
    assert "Above the input, below" in page.description and "the bar the confidence" in page.description


def test_eight_samples_of_long_names_are_a_card_too():
    page = squares(8, "automobile", "automobiles")
    assert fits(page, 900) and min(next(page.parts(Tile)).size) >= 143
    assert sum(line.endswith("50 %") for text in page.parts(Text) for line in text.lines) == 8


@pytest.mark.parametrize("lines", range(5))
@pytest.mark.parametrize("name", ["cat", "automobile"])
def test_a_page_is_900_high_whatever_its_caption_and_names(name, lines):
    page = squares(8, name, f"{name}s", details=["a fact that fills a line of the caption all by itself"] * lines)
    assert fits(page, 900) and min(next(page.parts(Tile)).size) >= 120


def test_a_map_that_is_weak_beside_the_others_looks_and_says_so():
    """Its spot would else pass for what the network looks at."""
    spot = np.zeros((3, 6, 6))
    spot[0], spot[1, 0, 0], spot[2, :3] = 1, 0.9, 0.9  # the second is bright, yet little in all
    page = cam(spot)
    maps = list(page.parts(MapTile))
    assert [tile.weak for tile in maps] == [False, True, False]
    assert page.notes == ("weak: 1 of 3 maps, in sum below ¼ of the strongest",)
    plain, pale, bare = (np.asarray(draw(tile), int) for tile in (
        replace(maps[1], weak=False), maps[1], replace(maps[1], weak=False, values=0 * maps[1].values)))  # fmt: skip
    top = slice(0, 20)  # above the word
    assert 0 < np.abs(pale - bare)[top].sum() < 0.6 * np.abs(plain - bare)[top].sum()
    assert (pale != plain)[-24:, :58].any()
    assert not any(tile.weak for tile in saliency(spot[:, None]).parts(MapTile))  # no evidence, but sensitivity
    several = columns(3, 2, maps=np.stack([spot, spot])[:, :, None])
    assert [tile.weak for tile in several.parts(MapTile)] == [False, False, True, True, False, False]
    assert several.notes == ("weak: 2 of 6 maps, in sum below ¼ of the strongest",)
    alike = columns(3, 2, maps=np.ones((2, 3, 1, 6, 6)))
    assert not alike.notes and "weak" not in alike.description


@pytest.mark.parametrize(("other", "words"), [("5", "✗ 3 → 5  50 %"), ("mice", "✗ 3 → mice")])
def test_a_confidence_is_a_bar_where_it_would_take_a_line_of_text(other, words):
    page = squares(8, "3", other)
    assert words in [line for text in page.parts(Text) for line in text.lines]
    assert [bar.share for bar in page.parts(Bar)] == [0.5] * 8


@pytest.mark.parametrize(
    ("shape", "count", "words"), [((16, 16), 1, "Left"), ((16, 48), 8, "Above"), ((48, 16), 8, "Left")]
)
def test_maps_stand_where_tiles_are_largest(shape, count, words):
    images = RNG.integers(0, 256, (count, *shape, 3)).astype(np.uint8)
    page = attribution_maps("t", images, RNG.uniform(size=(count, 1, 4, 4)), method="m", target="t", display="heat")
    assert f"{words} the input" in page.description and fits(page, 920)
    assert len({part.size for part in page.parts(Tile)}) == 1


def columns(count=4, classes=3, **options):
    images = RNG.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    maps = RNG.uniform(0.5, 1, size=(classes, count, 1, 6, 6))
    settings = {"maps": maps / maps.max((2, 3, 4), keepdims=True), "method": "Grad-CAM", "display": "heat", "step": 3}
    settings |= {"names": [["cat: 99 %"] * count] * classes, "verdicts": [Verdict("cat", "dog", 0.5, "cat")] * count}
    return class_columns("t", images, **{**settings, **options})


def test_maps_of_several_classes_are_on_the_pages_scale():
    strengths = np.array([[4, 0.2, 0.1], [0.04, 0.02, 0.01]]).reshape(2, 3, 1, 1, 1)
    page = columns(3, 2, maps=np.ones((2, 3, 1, 6, 6)) * strengths, layer="conv2")
    assert {tile.value for tile in page.parts(MapTile)} == {4}
    words = [line for text in page.parts(Text) for line in text.lines]
    assert [word for word in words if word in ("4", "0.2", "0.1", "0.04", "0.02", "0.01")] == [
        "4", "0.04", "0.2", "0.02", "0.1", "0.01"]  # fmt: skip
    (bar,) = page.parts(ColorBar)
    assert (bar.low, bar.high, bar.label) == ("0", "4", "logits")
    assert "on one scale. Rows and columns compare" in page.description


@pytest.mark.parametrize(
    "draw_page", [lambda **options: squares(2, **options), lambda **options: columns(2, 2, **options)]
)
def test_a_bar_of_signed_maps_says_which_color_speaks_for_the_class(draw_page):
    page = draw_page(display="signed", unit="logits")
    (bar,) = page.parts(ColorBar)
    reach = next(page.parts(MapTile)).value
    assert (bar.low, bar.middle, bar.high) == (f"against −{reach:.3g}", "0", f"for {reach:.3g}")
    assert draw(page.body).width <= 676


@pytest.mark.parametrize(("classes", "rows", "width"), [(1, 3, 160), (3, 3, 160), (4, 3, 123), (6, 3, 88), (8, 1, 160)])
def test_samples_of_several_classes_are_as_large_as_their_number_allows(classes, rows, width):
    page = columns(4, classes, names=[["an Egyptian cat: 99 %"] * 4] * classes)
    inputs = [tile for tile in page.parts(Tile) if not isinstance(tile, MapTile)]
    assert len(inputs) == rows and inputs[0].size[0] >= width and fits(page, 920)
    assert f"{rows} of 4 samples" in page.description
    assert draw(page.body).width <= 676


def heads(maps, tokens=37, **options):
    images = RNG.integers(0, 256, (maps.shape[1], 16, 16, 3)).astype(np.uint8)
    settings = {"heads": range(len(maps) - 1), "count": len(maps) - 1, "method": "Attention", "layer": "attn"}
    settings |= {"query": "the class token", "tokens": tokens, "unit": "of attention", "step": 3}
    return head_columns("t", images, maps, **{**settings, **options})


def shares(peak, samples=1):
    """A map of 6 x 6 patches: all but one have uniform attention among 37 tokens, that one so many times as much."""
    heat = np.full((samples, 1, 6, 6), 1 / 37)
    heat[:, 0, 2, 3] = peak / 37
    return heat


def test_attention_is_shown_in_times_uniform_on_a_scale_that_never_changes():
    page, later = (heads(np.stack([shares(peak), shares(2), shares(1.2)])) for peak in (4, 12))
    for one, largest in ((page, "4×"), (later, "12×")):
        words = [line for text in one.parts(Text) for line in text.lines]
        assert [word for word in words if word.endswith("×")] == [largest, "2×", "1.2×"]
        (bar,) = one.parts(ColorBar)
        assert (bar.low, bar.high) == ("uniform 1×", "16×")
        assert "1× is uniform, 1/37 to each token" in one.description
    tile = next(page.parts(MapTile))
    shown, bare = (np.asarray(draw(replace(tile, values=values)), int) for values in (tile.values, 0 * tile.values))
    assert (shown[:20] == bare[:20]).all()  # where attention is uniform the image is itself
    assert np.abs(shown - bare).max() > 50


def test_two_pages_give_the_same_attention_the_same_color():
    image = IMAGES[:1]
    arguments = {"heads": [0], "count": 1, "method": "Attention", "layer": "attn", "query": "q", "tokens": 37}
    pages = [head_columns("t", image, np.stack([shares(3), shares(peak)]), **arguments) for peak in (3, 30)]
    first, second = (np.asarray(draw(next(page.parts(MapTile)))) for page in pages)
    assert (first == second).all()


def test_maps_on_their_own_scales_are_as_bright_whatever_their_size():
    heat = np.zeros((3, 6, 6))
    heat[:, 2, 3] = 0.8, 0.1, 0.004
    page = cam(heat, display="own heat", layer="")
    (bar,) = page.parts(ColorBar)
    assert (bar.low, bar.high) == ("0", "each map's maximum")
    assert "where in it" in page.description and "on its own scale" in page.description
    assert [tile.weak for tile in page.parts(MapTile)] == [False] * 3 and not page.notes
    words = [line for text in page.parts(Text) for line in text.lines]
    assert [word for word in ("0.8", "0.1", "0.004") if word in words] == ["0.8", "0.1", "0.004"]
    reached = []
    for tile in page.parts(MapTile):
        shown, bare = (np.asarray(draw(replace(tile, values=values)), int) for values in (tile.values, 0 * tile.values))
        reached.append(np.abs(shown - bare).max())
    assert min(reached) > 0.7 * max(reached) > 50


def test_a_map_that_is_flat_and_one_that_attends_elsewhere_are_told():
    page = heads(np.stack([shares(4), shares(1.4), 0.2 * shares(1)]))
    assert [(tile.flat, tile.weak) for tile in page.parts(MapTile)] == [(False, False), (True, False), (False, True)]
    assert "flat: 1 of 3 maps" in page.description
    assert page.notes == ("weak: 1 of 3 maps, over ¾ of the attention is on no patch",)
    tile = list(page.parts(MapTile))[1]
    assert (np.asarray(draw(tile)) != np.asarray(draw(replace(tile, flat=False)))).any()
    rollout = attribution_maps("t", IMAGES[:1], shares(1.4), method="Rollout", target="", display="heat", tokens=37)
    assert [tile.flat for tile in rollout.parts(MapTile)] == [True] and "flat: 1 of 1 maps" in rollout.description
    assert rollout.title == "Rollout, whatever the class" and "evidence" not in rollout.description


def test_a_page_of_columns_says_of_how_many_samples_there_are():
    assert "step 3 · 3 of 16 samples" in heads(np.stack([shares(4, 8)] * 2), samples=16).description
    assert "step 3 · 3 of 16 samples" in columns(8, 3, samples=16).description


def test_a_confidence_looks_like_a_gauge_not_like_a_line_between_samples():
    page = squares(8)
    bars = list(page.parts(Bar))
    assert all(bar.framed and bar.width <= 100 for bar in bars) and "bar: confidence, full at 100 %" in page.description
    full = np.asarray(draw(replace(bars[0], width=100, share=1.0)))[5].sum(-1)
    assert [int(place) for place in np.flatnonzero(full == 3 * 255)] == [25, 50, 75]


@pytest.mark.parametrize(
    ("cells", "words"), [(2, "each cell sees 9 × 12 pixels or more"), (5, ""), (4, "5 × 6 pixels")]
)
def test_a_layer_of_few_cells_says_how_much_each_sees(cells, words):
    description = cam(RNG.uniform(size=(2, cells, cells))).description
    assert words in description and ("each cell" in description) == bool(words)


@pytest.mark.parametrize("draw", [cam, lambda heat: saliency(heat[:, None])])
def test_flaws_are_told(draw):
    values = RNG.uniform(0.1, 1, size=(16, 5, 5))
    values[1] = 0
    values[3, 2, 2] = np.nan
    text = draw(values).description
    assert "in 1 of 16" in text and "NaN in 1 of 16" in text and "zero" in text
    assert "1 × 1 map" in draw(values[:, :1, :1]).description
    assert "not reached" in draw(values[:, :0, :0]).description


def test_all_flawed_is_still_a_picture():
    assert fits(cam(np.zeros((4, 7, 7))), 1000)
    assert "all-zero gradient in 4 of 4 samples" in saliency(np.zeros((4, 3, 7, 7))).description
    assert "NaN in 8 of 8 maps" in activations(np.full((4, 2, 7, 7), np.nan)).description


def test_saliency_reduces_channels_as_said():
    gradient = RNG.normal(size=(2, 3, 17, 23))
    single = np.abs(gradient).sum(axis=1, keepdims=True)
    assert (decoded(saliency(gradient))[-300:-60] == decoded(saliency(single))[-300:-60]).all()
    largest = np.abs(gradient).max(axis=1, keepdims=True)
    assert (decoded(saliency(gradient, display="max"))[-300:-60] == decoded(saliency(largest))[-300:-60]).all()
    assert next(saliency(np.ones((2, 3, 5, 5))).parts(ColorBar)).high == "3"
    assert next(saliency(np.ones((2, 3, 5, 5)), display="max").parts(ColorBar)).high == "1"


def test_fixed_limits_are_in_the_caption_and_beyond_is_counted():
    maps = RNG.uniform(0, 2, size=(4, 3, 6, 6))
    text = activations(maps, (0.0, 1.0), limits_note="1st to 99th percentile at step 0").description
    assert (
        "each channel on its own display scale · 1st to 99th percentile at step 0" in text
        and "% of values beyond" in text
    )
    assert "0 % of values beyond" in activations(maps, (0.0, 2.0)).description


def test_the_same_activation_has_the_same_color_at_every_step_under_fixed_limits():
    maps = RNG.uniform(0, 1, size=(4, 3, 6, 6))
    later = maps.copy()
    later[0, 0] *= 7
    before, after = decoded(activations(maps, (0.0, 9.0))), decoded(activations(later, (0.0, 9.0)))
    assert (before[-300:] == after[-300:]).all() and (before != after).any()


@pytest.mark.parametrize("low", [0, -1])
def test_a_weak_channel_does_not_look_empty_and_its_size_stands_below_it(low):
    """On the scale of strong ones it was taken for useless."""
    maps = RNG.uniform(low, 1, size=(2, 3, 6, 6))
    maps[:, 1] = 0.01 * maps[:, 0]
    page = activations(maps, [(low, 1.0), (0.01 * low, 0.01), (0.5 * low, 0.5)])
    strong, weak, _ = list(page.parts(MapTile))[:3]
    apart = np.asarray(draw(strong)).astype(int) - np.asarray(draw(weak))
    assert np.abs(apart).max() <= 2  # a last digit of a quotient may fall on the next color
    words = [text for text, _ in texts(page)]
    place, sign = words.index("scale"), "±" if low else ""
    assert words[place + 1 : place + 4] == [f"{sign}1", f"{sign}0.01", f"{sign}0.5"]
    assert [part.share for part in page.parts(Bar)] == [None, 1.0, 0.01, 0.5]
    (bar,) = page.parts(ColorBar)
    assert (bar.low, bar.high, bar.label) == ("−scale" if low else "0", "scale", "of each channel")


def test_maps_that_each_have_a_scale_have_the_largest_of_their_channel_below():
    maps = RNG.normal(size=(2, 3, 6, 6))
    maps[0, 2, 0, 0] = np.nan
    words = [text for text, _ in texts(activations(maps))]
    place = words.index("largest")
    assert words[place + 1 : place + 4] == [number(float(np.nanmax(np.abs(maps[:, k])))) for k in range(3)]


def test_signed_maps_get_symmetrical_ends():
    maps = RNG.normal(size=(2, 3, 6, 6))
    assert {tile.limits for tile in activations(maps, (-0.5, 2.0)).parts(MapTile)} == {(-2.0, 2.0)}
    assert "absolute" in activations(maps).description and "absolute" not in activations(np.abs(maps)).description


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_pictures_stay_within_the_page(count):
    verdicts = [Verdict("an extraordinarily long class name", "dog", 0.5)] * count
    heat, maps = RNG.uniform(size=(count, 4, 4)), RNG.uniform(size=(count, 9, 4, 4))
    for picture in (
        cam(heat, verdicts=verdicts),
        saliency(heat[:, None], verdicts=verdicts),
        activations(maps, verdicts=verdicts),
    ):
        assert fits(picture, 960)
    assert "7 of 9 channels" in activations(maps).description


def test_mistakes_look_different():
    heat = RNG.uniform(size=(1, 4, 4))
    right, wrong = (cam(heat, verdicts=[Verdict("cat", name, 0.9)]) for name in ("cat", "dog"))
    red = (190, 20, 30)
    assert (body(wrong) == red).all(axis=-1).sum() > 20 + (body(right) == red).all(axis=-1).sum()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="to_rgb"):
        attribution_maps("t", IMAGES.transpose(0, 3, 1, 2), IMAGES[..., :1], method="m", step=0, target="t")
    with pytest.raises(ValueError, match="maps"):
        attribution_maps("t", IMAGES, IMAGES[:3], method="m", step=0, target="t")
    with pytest.raises(ValueError, match="maps"):
        activation_maps("t", IMAGES, np.zeros((16, 3, 2, 2)), layer="l", step=0, channels=[1, 2], limits=None)


def test_pictures_are_the_same_to_the_byte():
    heat = RNG.uniform(size=(3, 4, 4))
    assert lay_out(cam(heat)) == lay_out(cam(heat))
