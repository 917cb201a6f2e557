import warnings

import numpy as np
import pytest
import sklearn.manifold
from scipy.optimize import brentq
from sklearn.datasets import load_digits, make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from lightning_viz import embedding

ENGINES = ["sklearn", "opentsne"]


@pytest.fixture(scope="module")
def digits():
    vectors, labels = load_digits(return_X_y=True)
    return vectors[:240].astype(np.float32), labels[:240]


def walk(vectors, steps, seed=0):
    """The same samples a little later: a slowly turning, noisy linear layer."""
    random = np.random.default_rng(seed)
    change = random.normal(size=(vectors.shape[1], vectors.shape[1])) / np.sqrt(vectors.shape[1])
    return [vectors @ (np.eye(vectors.shape[1]) + 0.15 * step * change).astype(np.float32) for step in range(steps)]


def divergence(vectors, points, perplexity):
    """t-SNE's objective written out: dense, in double precision, perplexities by Brent's root."""
    vectors, points = vectors.astype(np.float64), points.astype(np.float64)
    count = len(vectors)
    squares = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    p = np.zeros((count, count))
    for i in range(count):
        others = np.delete(squares[i], i) - np.delete(squares[i], i).min()

        def conditional(log_beta, others=others):
            weights = np.exp(-others * np.exp(log_beta))
            return weights / weights.sum()

        def surplus(log_beta, conditional=conditional):
            q = conditional(log_beta)
            return -(q * np.log(q + 1e-300)).sum() - np.log(perplexity)

        p[i, np.arange(count) != i] = conditional(brentq(surplus, -20, 20))
    p = (p + p.T) / (2 * count)
    q = 1 / (1 + ((points[:, None] - points[None]) ** 2).sum(axis=2))
    np.fill_diagonal(q, 0)
    q /= q.sum()
    return (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()


# --- reduce and PCA


@pytest.mark.parametrize("shape", [(40, 7), (60, 200), (900, 600)])
def test_reduce_agrees_with_scikit_learn_up_to_signs(shape):
    random = np.random.default_rng(0)
    spectrum = 0.9 ** np.arange(shape[1])
    vectors = (random.normal(size=shape) * spectrum + 3).astype(np.float32)
    ours = embedding.reduce(vectors)
    theirs = PCA(min(50, *shape), svd_solver="full").fit_transform(vectors.astype(np.float64))
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    np.testing.assert_allclose(np.abs(ours[:, :10]), np.abs(theirs[:, :10]), atol=2e-4)


def test_reduce_keeps_distances_where_nothing_is_dropped(digits):
    vectors = 5 + digits[0][:30]
    from scipy.spatial.distance import pdist

    np.testing.assert_allclose(pdist(embedding.reduce(vectors)), pdist(vectors), rtol=1e-4)


def test_signs_do_not_depend_on_the_order_of_samples(digits):
    order = np.random.default_rng(3).permutation(240)
    there = embedding.reduce(digits[0], dimensions=5)[order]
    np.testing.assert_allclose(there, embedding.reduce(digits[0][order], dimensions=5), atol=1e-3)


def test_pca_follows_a_layer_whose_components_flip(digits):
    first = embedding.pca(digits[0])
    mirrored = embedding.pca(-digits[0], previous=first.points)
    np.testing.assert_allclose(mirrored.points, first.points, atol=1e-3)
    assert first.method == "PCA" and first.divergence is None and not first.warm


def test_pca_of_one_dimension_lies_on_a_line():
    points = embedding.pca(np.arange(6.0)[:, None], dimensions=3).points
    np.testing.assert_allclose(points, np.pad(np.arange(6.0)[:, None] - 2.5, ((0, 0), (0, 2))), atol=1e-6)


# --- t-SNE


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("warm", [False, True])
def test_divergence_is_that_of_the_points(digits, engine, warm):
    vectors = digits[0][:91]  # both engines keep 3 x perplexity neighbors: here, everyone
    cold = embedding.tsne(vectors, engine=engine)
    got = embedding.tsne(vectors, previous=cold.points, engine=engine) if warm else cold
    assert got.divergence == pytest.approx(divergence(vectors, got.points, 30), rel=0.04)  # theirs are Barnes-Hut
    assert got.warm is warm and got.engine == engine and got.method == "t-SNE" and got.perplexity == 30


def test_a_cold_start_is_as_good_as_scikit_learns_own(digits):
    own = sklearn.manifold.TSNE(perplexity=20, random_state=0).fit(digits[0])
    for engine in ENGINES:
        got = embedding.tsne(digits[0], perplexity=20, engine=engine)
        assert got.divergence < own.kl_divergence_ + 0.03
        assert embedding.trustworthiness(digits[0], got.points) > 0.97


@pytest.mark.parametrize("engine", ENGINES)
def test_a_warm_start_moves_at_most_half_as_far_and_is_as_trustworthy(digits, engine):
    cold = warm = embedding.tsne(digits[0], engine=engine)
    moved = {"cold": 0.0, "warm": 0.0}
    for later in walk(digits[0], 3)[1:]:
        again = embedding.tsne(later, engine=engine)
        turned = embedding.procrustes(again.points, cold.points)
        on = embedding.tsne(later, previous=warm.points, engine=engine)
        moved["cold"] += np.linalg.norm(turned - cold.points, axis=1).mean()
        moved["warm"] += np.linalg.norm(on.points - warm.points, axis=1).mean()
        trust = [embedding.trustworthiness(later, points) for points in (again.points, on.points)]
        assert on.warm and trust[1] > trust[0] - 0.01
        cold, warm = embedding.Embedding(turned, "t-SNE"), on
    assert moved["warm"] < 0.5 * moved["cold"], moved


@pytest.mark.parametrize("engine", ENGINES)
def test_a_warm_start_is_turned_onto_the_previous_points(digits, engine):
    first = embedding.tsne(digits[0], engine=engine).points + np.float32(7)
    later = embedding.tsne(walk(digits[0], 2)[1], previous=first, engine=engine).points
    np.testing.assert_allclose(later.mean(axis=0), first.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(embedding.procrustes(later, first), later, atol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_tsne_unrolls_the_swiss_roll_with_noise_and_pca_does_not(engine):
    roll, along = make_swiss_roll(500, random_state=0)
    vectors = np.hstack([roll, np.random.default_rng(0).normal(size=(500, 1))])

    def torn(points):
        """Share of nearest neighbors in the picture that are not near along the roll."""
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        return (np.abs(along[distances.argsort(axis=1)[:, :5]] - along[:, None]) > 1).mean()

    assert torn(embedding.tsne(vectors, engine=engine).points) < 0.02
    assert torn(embedding.pca(vectors).points) > 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_decides_and_the_global_generator_is_left_alone(digits, engine):
    vectors = digits[0][:80]
    np.random.seed(5)
    before = np.random.get_state()
    first = embedding.tsne(vectors, engine=engine, seed=3)
    second = embedding.tsne(vectors, previous=first.points, engine=engine)
    embedding.kmeans(vectors, clusters=10, labels=digits[1][:80])
    embedding.knn_accuracy(vectors, digits[1][:80])
    embedding.trustworthiness(vectors, first.points)
    embedding.reduce(np.random.default_rng(0).normal(size=(600, 600)))
    after = np.random.get_state()
    assert before[2] == after[2] and (before[1] == after[1]).all()
    np.random.seed(6)
    assert (embedding.tsne(vectors, engine=engine, seed=3).points == first.points).all()
    assert (embedding.tsne(vectors, previous=first.points, engine=engine).points == second.points).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_where_nothing_is_learned_little_moves(digits, engine):
    first = embedding.tsne(digits[0], engine=engine).points
    moved = np.linalg.norm(embedding.tsne(digits[0], previous=first, engine=engine).points - first, axis=1).mean()
    assert moved < 0.1 * np.linalg.norm(first, axis=1).mean()


def test_the_number_of_threads_does_not_change_the_picture():
    vectors, points = load_digits().data[:500], []
    for threads in (1, 2):
        with threadpool_limits(threads):
            points.append(embedding.tsne(vectors, engine="sklearn").points)
    assert (points[0] == points[1]).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_three_dimensions(digits, engine):
    first = embedding.tsne(digits[0][:60], dimensions=3, engine=engine)
    later = embedding.tsne(digits[0][:60], dimensions=3, previous=first.points, engine=engine)
    assert later.points.shape == (60, 3) and np.linalg.matrix_rank(later.points) == 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 2, 5, 29, 30, 45])
def test_few_samples(digits, engine, count):
    got = embedding.tsne(digits[0][:count], engine=engine)
    again = embedding.tsne(digits[0][:count], engine=engine, previous=got.points)
    assert got.points.shape == again.points.shape == (count, 2)
    assert np.isfinite(got.points).all() and np.isfinite(again.points).all()
    if count == 1:
        assert got.method == "constant"
    elif count < 30:
        assert got.method == again.method == "PCA" and got.perplexity is None
    else:
        assert got.method == "t-SNE" and got.perplexity == pytest.approx((count - 1) / 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_that_dies_and_comes_back(digits, engine):
    alive = embedding.tsne(digits[0][:60], engine=engine)
    noise = np.random.default_rng(0).uniform(1 - 1e-7, 1 + 1e-7, size=(60, 9))  # of rounding
    dead = embedding.tsne(0.1 * noise, previous=alive.points + 3, engine=engine)
    assert dead.method == "constant" and dead.divergence is None
    np.testing.assert_allclose(dead.points, np.full((60, 2), 3.0), atol=1e-3)
    back = embedding.tsne(digits[0][:60], previous=dead.points, engine=engine)
    assert not back.warm and embedding.trustworthiness(digits[0][:60], back.points) > 0.9


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_duplicates_and_extreme_scales(digits, engine, scale):
    vectors = np.repeat(digits[0][:20], 5, axis=0) * np.float32(scale)
    got = embedding.tsne(vectors, engine=engine)
    again = embedding.tsne(vectors, previous=got.points, engine=engine)
    assert np.isfinite(got.points).all() and np.isfinite(again.points).all() and again.divergence < 5
    two = embedding.tsne(np.repeat(np.eye(2) * scale, 30, axis=0), engine=engine)
    assert np.isfinite(two.points).all()
    line = embedding.tsne(np.random.default_rng(0).normal(size=(60, 1)) * scale, engine=engine)
    assert line.points.std(axis=0).min() > 0.1  # free to leave the line and pass each other
    one_off = embedding.tsne(np.eye(50)[:, :1] * scale, engine=engine)
    assert np.isfinite(one_off.points).all()
    assert np.isfinite(embedding.trustworthiness(vectors, got.points))


def test_without_opentsne_auto_is_scikit_learn(digits, monkeypatch):
    assert embedding.tsne(digits[0][:30]).engine == "opentsne"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert embedding.tsne(digits[0][:30]).engine == "sklearn"


# --- Procrustes and extent


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("mirror", [1, -1])
def test_procrustes_recovers_a_planted_motion(dimensions, mirror):
    random = np.random.default_rng(0)
    reference = random.normal(size=(40, dimensions)) * np.arange(1, dimensions + 1)
    turn = np.linalg.qr(random.normal(size=(dimensions, dimensions)))[0]
    turn[:, 0] *= mirror * np.sign(np.linalg.det(turn))
    assert np.linalg.det(turn) == pytest.approx(mirror)
    np.testing.assert_allclose(embedding.procrustes(reference @ turn + 9, reference), reference, atol=1e-5)
    larger = embedding.procrustes(3 * reference @ turn, reference)
    np.testing.assert_allclose(larger.std(), (3 * (reference - reference.mean(0))).std(), rtol=0.05)  # no scaling


def test_extent_is_a_square_that_holds_nearly_all_points_and_grows_only_when_it_must():
    random = np.random.default_rng(0)
    cloud = random.normal(size=(100, 2)) * (4, 1) + (10, -5)

    def inside(points, box):
        return np.mean((points >= [box[0], box[2]]).all(1) & (points <= [box[1], box[3]]).all(1))

    first = embedding.extent(cloud, None)
    x0, x1, y0, y1 = first
    assert x1 - x0 == pytest.approx(y1 - y0) and inside(cloud, first) >= 0.98
    assert 1.2 * np.ptp(np.quantile(cloud[:, 0], [0.02, 0.98])) < x1 - x0 < 1.25 * np.ptp(cloud[:, 0])
    assert embedding.extent(cloud * 0.1 + (9, -4.5), first) == first  # shrinks: stays
    center = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    assert embedding.extent((cloud - center) * 1.2 + center, first) == first  # grows within the margin: stays
    larger = (cloud - center) * 1.4 + center
    grown = embedding.extent(larger, first)
    assert grown[1] - grown[0] == pytest.approx(1.25 * (x1 - x0)) and inside(larger, grown) >= 0.98
    assert (grown[0] + grown[1]) / 2 == pytest.approx(center[0])
    assert embedding.extent(np.vstack([cloud[2:], [[500, -5], [600, 0]]]), first) == first  # two outliers of 100
    far = embedding.extent(np.vstack([cloud[3:], np.full((3, 2), 500.0)]), first)
    assert far[1] >= 500 and far[1] - far[0] == pytest.approx(far[3] - far[2])
    constant = embedding.extent(np.ones((5, 2)), None)
    assert constant[0] < 1 < constant[1] and embedding.extent(cloud[:20], constant)[1] >= cloud[:20].max()


# --- k-means and the numbers


def test_clusters_take_the_numbers_of_their_classes(digits):
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([7, 2, 5], 30))
    vectors = np.array([[0, 0], [9, 0], [0, 9]])[np.searchsorted([2, 5, 7], labels)] + random.normal(size=(90, 2))
    assert (embedding.kmeans(vectors, clusters=3, labels=labels) == labels).all()
    free = embedding.kmeans(vectors, clusters=3)
    assert sorted(set(free)) == [0, 1, 2]
    five = embedding.kmeans(vectors, clusters=5, labels=labels)
    assert set(five) == {7, 2, 5, 0, 1} and (five == labels).mean() > 0.5
    two = embedding.kmeans(vectors, clusters=2, labels=labels)
    assert set(two) < {7, 2, 5} and (two == labels).mean() > 0.6
    found = embedding.kmeans(digits[0], clusters=10, labels=digits[1])
    assert (found == digits[1]).mean() > 0.7


def test_kmeans_with_fewer_distinct_samples_than_clusters():
    assert set(embedding.kmeans(np.ones((20, 3)), clusters=4)) == {0}
    assert len(set(embedding.kmeans(np.repeat(np.eye(3), 5, axis=0), clusters=8, labels=np.arange(15)))) == 3
    assert len(embedding.kmeans(np.eye(3), clusters=8)) == 3


def test_trustworthiness_is_scikit_learns(digits):
    points = np.random.default_rng(0).normal(size=(240, 2)) + embedding.pca(digits[0]).points
    for neighbors in (5, 12):
        expected = sklearn.manifold.trustworthiness(digits[0], points, n_neighbors=neighbors)
        assert embedding.trustworthiness(digits[0], points, neighbors=neighbors) == pytest.approx(expected, abs=1e-5)
    assert embedding.trustworthiness(digits[0][:10], points[:10]) is None
    assert embedding.trustworthiness(digits[0][:11], points[:11]) is not None


def test_knn_accuracy_is_that_of_a_classifier_that_has_not_seen_the_sample(digits):
    vectors, labels = digits[0] + np.random.default_rng(0).normal(scale=6, size=digits[0].shape), digits[1]
    right = []
    for i in range(len(vectors)):
        rest = np.arange(len(vectors)) != i
        model = KNeighborsClassifier(5).fit(vectors[rest], labels[rest])
        right.append(model.predict(vectors[i : i + 1])[0] == labels[i])
    assert 0.5 < np.mean(right) < 0.95
    assert embedding.knn_accuracy(vectors, labels) == pytest.approx(
        np.mean(right), abs=0.03
    )  # ties are broken otherwise
    assert embedding.knn_accuracy(vectors, labels, neighbors=1) < 1


def test_knn_accuracy_of_noise_and_of_a_dead_layer_is_chance():
    labels = np.repeat([0, 1], 150)
    assert embedding.knn_accuracy(np.random.default_rng(0).normal(size=(300, 5)), labels) == pytest.approx(0.5, abs=0.1)
    assert embedding.knn_accuracy(np.ones((300, 5)), labels) == pytest.approx(0.5, abs=0.1)


def test_knn_accuracy_where_there_is_nothing_to_say(digits):
    vectors, labels = digits
    assert embedding.knn_accuracy(vectors, None) is None
    assert embedding.knn_accuracy(vectors, np.zeros(240, dtype=int)) is None
    assert embedding.knn_accuracy(vectors[:5], labels[:5]) is None
    assert 0 <= embedding.knn_accuracy(vectors[:12], labels[:12]) <= 1  # most classes have one member
    assert embedding.knn_accuracy(vectors[:20], [f"class {label}" for label in labels[:20]]) is not None


# --- misuse


@pytest.mark.parametrize(
    "call",
    [
        embedding.reduce,
        embedding.pca,
        embedding.tsne,
        embedding.extent,
        lambda bad: embedding.kmeans(bad, clusters=2),
        lambda bad: embedding.knn_accuracy(bad, np.arange(len(bad)) % 2),
        lambda bad: embedding.trustworthiness(bad, np.ones((len(bad), 2))),
        lambda bad: embedding.procrustes(bad, np.ones_like(bad)),
        lambda bad: embedding.procrustes(np.ones_like(bad), bad),
        lambda bad: embedding.tsne(np.eye(20), previous=bad),
    ],
)
def test_what_is_not_finite_is_named(call):
    bad = np.random.default_rng(0).normal(size=(20, 2))
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"contains NaN in 1 of 20 rows"):
        call(bad)
    bad[3, 1] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        call(bad)


def test_misuse_is_said(digits):
    vectors, labels = digits
    for call, words in [
        (lambda: embedding.reduce(np.ones((2, 3, 4))), "flatten"),
        (lambda: embedding.reduce(np.ones((0, 4))), "at least 1"),
        (lambda: embedding.tsne(vectors, previous=np.ones((3, 2))), r"\[3, 2\]"),
        (lambda: embedding.tsne(vectors, dimensions=4), "dimensions=4"),
        (lambda: embedding.tsne(vectors, perplexity=0), "perplexity=0"),
        (lambda: embedding.tsne(vectors, engine="umap"), "umap"),
        (lambda: embedding.kmeans(vectors, clusters=3, labels=labels[:5]), "240 vectors"),
        (lambda: embedding.knn_accuracy(vectors, labels[:5]), "240 vectors"),
        (lambda: embedding.trustworthiness(vectors, np.ones((5, 2))), "5 points"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_no_warning_escapes_with_all_filters_open(digits):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for engine in ENGINES:
            first = embedding.tsne(digits[0][:40], engine=engine)
            embedding.tsne(np.zeros((40, 64)), previous=first.points, engine=engine)
        embedding.kmeans(np.ones((9, 2)), clusters=3)
    assert not seen
