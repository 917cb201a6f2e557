"""Layers as vectors of bounded size."""

import torch

from lightning_viz.activations import PROJECTED_ABOVE, PROJECTED_TO, count_sketch, vectorizer


def test_count_sketch_is_linear():
    project = count_sketch(5000, 128, seed=1)
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 5000, dtype=torch.float64)
    assert torch.allclose(project(2 * x - 3 * y), 2 * project(x) - 3 * project(y), atol=1e-10)
    assert torch.equal(project(x[1:2]), project(x)[1:2])  # sample by sample


def test_count_sketch_keeps_inner_products_without_bias_and_within_its_deviation():
    """Over 400 sketches <Px, Py> has mean <x, y> and deviation at most sqrt((|x|^2 |y|^2 + <x, y>^2) / components)."""
    dimension, components, sketches = 700, 64, 400  # 700 is no multiple of 64
    torch.manual_seed(0)
    x, y = torch.randn(2, dimension, dtype=torch.float64)
    y = y + 0.5 * x
    y[3] = 40 * x[3].sign()  # one large coordinate, which a bad sketch loses or counts twice
    pairs = torch.stack([x, y])
    estimates = []
    for seed in range(sketches):
        px, py = count_sketch(dimension, components, seed=seed)(pairs)
        assert px.shape == (components,)
        estimates.append(float(px @ py))
    estimates = torch.tensor(estimates, dtype=torch.float64)
    deviation = float(((x @ x * (y @ y) + (x @ y) ** 2) / components).sqrt())
    assert abs(float(estimates.mean() - x @ y)) < 3 * deviation / sketches**0.5
    assert 0.3 * deviation < float(estimates.std()) < 1.2 * deviation


def test_every_dimension_reaches_exactly_one_component_with_either_sign():
    matrix = count_sketch(700, 64, seed=5)(torch.eye(700))  # [dimension, component]
    assert torch.equal((matrix != 0).sum(1), torch.ones(700, dtype=torch.long))
    assert torch.equal(matrix.abs().sum(1), torch.ones(700))
    shares = (matrix != 0).sum(0)
    assert int(shares.min()) >= 10 and int(shares.max()) == 11  # equal shares: 700 / 64
    assert 250 < int((matrix.sum(1) > 0).sum()) < 450


def test_vectors_are_the_flattened_output_up_to_the_limit_and_a_sketch_above():
    reduce = vectorizer()
    small = torch.rand(3, 4, 32, 32, dtype=torch.bfloat16)  # 4,096 dimensions
    assert torch.equal(reduce(small), small.flatten(1).float())
    torch.manual_seed(0)
    large = torch.randn(40, 5, 30, 30)
    assert large[0].numel() > PROJECTED_ABOVE
    reduce = vectorizer(seed=2)
    whole, parts = reduce(large), torch.cat([reduce(large[:7]), reduce(large[7:])])
    assert whole.shape == (40, PROJECTED_TO)
    assert torch.equal(whole, parts)  # the signs are made once
    assert torch.equal(whole, vectorizer(seed=2)(large))
    distances, kept = torch.pdist(large.flatten(1)), torch.pdist(whole)
    assert float((kept / distances - 1).abs().max()) < 0.15  # one deviation is about sqrt(1 / (2 * 1024)) = 2 %


def test_vectors_are_no_views_of_the_output():
    output = torch.ones(2, 3)
    vectors = vectorizer()(output)
    output.zero_()
    assert torch.equal(vectors, torch.ones(2, 3))
