"""A layer's samples in the plane, comparable from step to step: PCA, t-SNE, k-means, and how far to believe them.

Arrays in, arrays out, for the drawing process beside training: deterministic in an explicit seed, NumPy's global
generator untouched, and on one thread, so that a run that is drawn again draws the same pictures.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lightning_viz.errors import InvalidArgumentError

__all__ = ["Embedding", "extent", "kmeans", "knn_accuracy", "pca", "procrustes", "reduce", "trustworthiness", "tsne"]

Floats = NDArray[np.float32]
Extent = tuple[float, float, float, float]
Engine = Literal["auto", "sklearn", "opentsne"]

_GROWTH = 1.25  # margin of the first extent, and the step in which it grows


@dataclass(frozen=True)
class Embedding:
    """Samples in the plane or in space, and how they came there.

    Attributes:
        points: where each sample lies, ``[N, 2 or 3]``, aligned to the previous step's points if those were given.
        method: ``"t-SNE"``, ``"PCA"``, or ``"constant"`` where all samples are the same and lie on one point.
        divergence: Kullback-Leibler divergence that t-SNE reached, in nats; None for other methods.
        warm: whether t-SNE started from the previous step's points.
        perplexity: t-SNE's effective perplexity, lower than asked for with few samples; None for other methods.
        engine: ``"sklearn"`` or ``"opentsne"``, which drew the t-SNE; None for other methods.
    """

    points: Floats
    method: str
    divergence: float | None = None
    warm: bool = False
    perplexity: float | None = None
    engine: str | None = None


def reduce(vectors: ArrayLike, *, dimensions: int = 50, seed: int = 0) -> Floats:
    """The samples on their first principal components: what t-SNE, k-NN and the projector work on.

    Args:
        vectors: one row per sample, ``[N, D]``.
        dimensions: components to keep at most (50, as van der Maaten and Hinton, 2008).
        seed: of the randomized solver (Halko et al., 2011), used where both N and D exceed 500.

    Returns:
        Centered scores, ``[N, min(D, dimensions, N)]``, in the vectors' unit, widest first; each component's largest
        loading is positive.

    Raises:
        ValueError: the vectors are no matrix, have no sample, or contain NaN or infinity.
    """
    from sklearn.utils.extmath import randomized_svd

    centered, scale = _standardize(_matrix(vectors, "vectors"))
    kept = min(*centered.shape, dimensions)
    with threadpool_limits(1):
        if min(centered.shape) > 500 and kept < 0.5 * min(centered.shape):
            left, singular, right = randomized_svd(centered, kept, n_iter=7, random_state=seed)
        else:
            left, singular, right = np.linalg.svd(centered, full_matrices=False)
    largest = np.take_along_axis(right, np.abs(right).argmax(axis=1)[:, None], axis=1)[:kept, 0]
    return np.asarray(left[:, :kept] * (singular[:kept] * np.where(largest < 0, -1, 1)) * scale, dtype=np.float32)


def pca(vectors: ArrayLike, *, previous: ArrayLike | None = None, dimensions: int = 2, seed: int = 0) -> Embedding:
    """The samples' first principal components, turned onto the previous step's points.

    Args:
        vectors: one row per sample, ``[N, D]``.
        previous: the previous step's points, ``[N, dimensions]``.
        dimensions: 2 or 3; missing ones (D or N is smaller) are zero.
        seed: of the randomized solver.

    Returns:
        The embedding, in the vectors' unit.

    Raises:
        ValueError: the vectors contain NaN or infinity, or ``previous`` has another shape.
    """
    scores = reduce(vectors, dimensions=dimensions, seed=seed)
    points = np.pad(scores, ((0, 0), (0, dimensions - scores.shape[1])))
    return Embedding(points if previous is None else procrustes(points, previous), "PCA")


def tsne(
    vectors: ArrayLike,
    *,
    previous: ArrayLike | None = None,
    perplexity: float = 30.0,
    dimensions: int = 2,
    seed: int = 0,
    engine: Engine = "auto",
) -> Embedding:
    r"""Neighbors stay neighbors (van der Maaten and Hinton, 2008), and from step to step the picture does not jump.

    .. math:: \min_y \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad q_{ij} \propto (1 + \|y_i - y_j\|^2)^{-1}

    A cold start is PCA shrunk to a standard deviation of 1e-4 (Kobak and Berens, 2019), exaggeration 12 and learning
    rate N / 12 (Belkina et al., 2019). A warm start is the previous points, and short: with scikit-learn 250 iterations
    (its least) at a tenth of that package's ``"auto"`` rate, without exaggeration, which would tear the points apart;
    with openTSNE 70, the first 20 with exaggeration 1.5. All measured in ``benchmarks/embedding.py``.

    Args:
        vectors: one row per sample, ``[N, D]``; above 50 dimensions reduced by PCA.
        previous: the previous step's points of the same samples, ``[N, dimensions]``: start there, and align to them.
        perplexity: effective number of neighbors, 30 (both packages' default); at most (N - 1) / 3.
        dimensions: 2 or 3.
        seed: of everything random.
        engine: ``"opentsne"`` (Policar et al., 2024), ``"sklearn"``, or ``"auto"``: openTSNE where it is installed.

    Returns:
        The embedding. Fewer than 4 samples: PCA. All samples the same (to 1e-6): all on one point.

    Raises:
        ValueError: the vectors contain NaN or infinity, ``previous`` has another shape, or an option is out of range.
        ImportError: openTSNE is asked for and not installed.
    """
    if dimensions not in (2, 3) or perplexity <= 0 or engine not in ("auto", "sklearn", "opentsne"):
        raise InvalidArgumentError(
            f"tsne: no such options: {dimensions=} (2 or 3), {perplexity=} (positive), {engine=}"
        )
    data = _matrix(vectors, "vectors")
    count = len(data)
    start = None if previous is None else _like(previous, (count, dimensions))
    if (np.ptp(data, axis=0) <= 1e-6 * np.abs(data).max(axis=0)).all():  # else t-SNE would draw rounding errors
        place = np.zeros(dimensions) if start is None else start.mean(axis=0)
        return Embedding(np.tile(place, (count, 1)).astype(np.float32), "constant")
    if count < 4:
        return pca(data, previous=start, dimensions=dimensions, seed=seed)
    perplexity = min(perplexity, max(1.0, (count - 1) / 3))
    if engine == "auto":
        engine = "opentsne" if importlib.util.find_spec("openTSNE") else "sklearn"
    # Coincident points attract and repel nothing: from a layer that was dead a step ago, start afresh.
    warm = start is not None and float(start.std(axis=0).max()) > 1e-2
    scores = reduce(_standardize(data)[0], seed=seed)
    begin = start if start is not None and warm else _shrunk(scores, dimensions, seed)
    run = _opentsne if engine == "opentsne" else _sklearn
    with threadpool_limits(1):
        points, divergence = run(scores, begin.astype(np.float32), perplexity, seed, warm)
    points = points - points.mean(axis=0) if start is None else procrustes(points, start)
    return Embedding(points.astype(np.float32), "t-SNE", divergence, warm, perplexity, engine)


def _sklearn(data: Floats, start: Floats, perplexity: float, seed: int, warm: bool) -> tuple[Floats, float]:
    from sklearn.manifold import TSNE

    model = TSNE(
        n_components=start.shape[1],
        perplexity=perplexity,
        early_exaggeration=1.0 if warm else 12.0,
        learning_rate=max(len(data) / 40, 5.0) if warm else "auto",  # a tenth: as trustworthy, and moves a third less
        max_iter=251 if warm else 1000,  # at 250 scikit-learn forgets the divergence
        init=start,
        random_state=seed,
    )
    return model.fit_transform(data), float(model.kl_divergence_)


def _opentsne(data: Floats, start: Floats, perplexity: float, seed: int, warm: bool) -> tuple[Floats, float]:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    affinities = PerplexityBasedNN(data, perplexity=perplexity, method="exact", n_jobs=1, random_state=seed)
    points: Any = TSNEEmbedding(start, affinities, negative_gradient_method="bh", n_jobs=1, random_state=seed)
    if warm:
        points = points.optimize(n_iter=20, exaggeration=1.5, momentum=0.8).optimize(n_iter=50, momentum=0.8)
    else:
        points = points.optimize(n_iter=250, exaggeration=12, momentum=0.8).optimize(n_iter=500, momentum=0.8)
    return np.array(points, dtype=np.float32), float(points.kl_divergence)


def _shrunk(scores: Floats, dimensions: int, seed: int) -> Floats:
    """PCA as a cold start; a little noise, since t-SNE cannot leave a line by itself."""
    first = scores[:, :dimensions] / scores[:, 0].std()
    noise = np.random.default_rng(seed).normal(scale=0.01, size=(len(scores), dimensions))
    return np.asarray(1e-4 * (noise + np.pad(first, ((0, 0), (0, dimensions - first.shape[1])))), dtype=np.float32)


def procrustes(points: ArrayLike, reference: ArrayLike) -> Floats:
    r"""The points turned, mirrored and shifted, never scaled, onto the reference (Schönemann, 1966).

    .. math:: \min_{Q^\top Q = 1,\, t} \sum_i \|Q^\top y_i + t - r_i\|^2: \qquad Q = U V^\top,\ Y^\top R = U S V^\top

    Args:
        points: ``[N, d]``.
        reference: the same samples' places, ``[N, d]``.

    Returns:
        The moved points, ``[N, d]``; their distances to each other are unchanged.

    Raises:
        ValueError: the shapes differ, or something is NaN or infinite.
    """
    moved = _matrix(points, "points").astype(np.float64)
    target = _like(reference, moved.shape).astype(np.float64)
    centered, center = moved - moved.mean(axis=0), target.mean(axis=0)
    left, _, right = np.linalg.svd(centered.T @ (target - center))
    return np.asarray(centered @ (left @ right) + center, dtype=np.float32)


def extent(points: ArrayLike, previous: Extent | None = None) -> Extent:
    """The axes' range, fixed over a run: it grows, in steps, only when a point would be cut off, and never shrinks.

    Clouds grow while a network learns, and a range that followed them would move every point at every step. So the
    first is a square a quarter wider than the cloud; later ones keep its center and are 1.25 times wider where needed.

    Args:
        points: ``[N, 2 or more]``; the first two columns count.
        previous: the previous step's extent.

    Returns:
        ``(x0, x1, y0, y1)``, a square that holds all points.

    Raises:
        ValueError: the points contain NaN or infinity.
    """
    plane = _matrix(points, "points")[:, :2].astype(np.float64)
    if previous is None:
        x, y = (plane.min(axis=0) + plane.max(axis=0)) / 2
        half = _GROWTH * float(np.abs(plane - (x, y)).max()) or 1e-3 * max(1.0, abs(x), abs(y))
    else:
        x, y = (previous[0] + previous[1]) / 2, (previous[2] + previous[3]) / 2
        half = (previous[1] - previous[0]) / 2
        reach = float(np.abs(plane - (x, y)).max())
        while half < reach:
            half *= _GROWTH
    return float(x - half), float(x + half), float(y - half), float(y + half)


def kmeans(vectors: ArrayLike, *, clusters: int, labels: ArrayLike | None = None, seed: int = 0) -> NDArray[np.int64]:
    """Clusters to hold against classes: the best of 10 runs of k-means (Lloyd, 1982), numbered like the classes.

    Args:
        vectors: one row per sample, ``[N, D]``.
        clusters: how many; fewer come back where fewer samples differ.
        labels: integer classes, ``[N]``. Clusters and classes are paired so that most samples agree (Kuhn, 1955), and a
            cluster takes its class's number, so that colors agree; one without a class takes the next free number.
        seed: of the starts.

    Returns:
        Each sample's cluster, ``[N]``.

    Raises:
        ValueError: the vectors contain NaN or infinity, or there are not as many labels as vectors.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    data, _ = _standardize(_matrix(vectors, "vectors"))
    model = KMeans(min(clusters, len(data)), n_init=10, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than clusters: fewer clusters
        found = np.unique(model.fit_predict(data), return_inverse=True)[1].reshape(-1).astype(np.int64)
    if labels is None:
        return found
    classes, members = np.unique(_labels(labels, len(data)), return_inverse=True)
    agreement = np.zeros((found.max() + 1, len(classes)), dtype=np.int64)
    np.add.at(agreement, (found, members.reshape(-1)), 1)
    pairs = dict(zip(*linear_sum_assignment(agreement, maximize=True), strict=True))
    taken = {int(value) for value in classes}
    free = (number for number in range(len(agreement) + len(taken)) if number not in taken)
    numbers = [int(classes[pairs[row]]) if row in pairs else next(free) for row in range(len(agreement))]
    return np.asarray(numbers, dtype=np.int64)[found]


def trustworthiness(vectors: ArrayLike, points: ArrayLike, *, neighbors: int = 5) -> float | None:
    """How far neighbors in the picture are neighbors in the layer (Venna and Kaski, 2001): 1 is all, 0.5 is chance.

    Args:
        vectors: the layer's samples, ``[N, D]``.
        points: their places in the picture, ``[N, 2 or 3]``.
        neighbors: how many are looked at (5, as scikit-learn).

    Returns:
        A number in [0, 1]; None with at most 2 x ``neighbors`` samples.

    Raises:
        ValueError: the numbers of samples differ, or something is NaN or infinite.
    """
    from sklearn import manifold

    data, places = (_standardize(_matrix(vectors, "vectors"))[0], _standardize(_matrix(points, "points"))[0])
    if len(data) != len(places):
        raise InvalidArgumentError(f"{len(data)} vectors and {len(places)} points: give one point per vector")
    if len(data) <= 2 * neighbors:
        return None
    with threadpool_limits(1):
        return float(manifold.trustworthiness(data, places, n_neighbors=neighbors))


def knn_accuracy(vectors: ArrayLike, labels: ArrayLike | None, *, neighbors: int = 5, seed: int = 0) -> float | None:
    """How separable the classes are: each sample is classified by its nearest neighbors among all the others.

    Leave-one-out, so every sample is held out once and no class is too small for the folds.

    Args:
        vectors: one row per sample, ``[N, D]``: a layer's or a picture's.
        labels: classes, ``[N]``.
        neighbors: how many vote (5, as scikit-learn); among classes with as many votes the nearest sample's wins.
        seed: of the order in which samples at the same distance are taken, which is not that of the data set.

    Returns:
        The share classified correctly; None without labels, with one class, or with at most ``neighbors`` samples.

    Raises:
        ValueError: the vectors contain NaN or infinity, or there are not as many labels as vectors.
    """
    from sklearn.neighbors import NearestNeighbors

    data, _ = _standardize(_matrix(vectors, "vectors"))
    if labels is None or len(data) <= neighbors:
        return None
    order = np.random.default_rng(seed).permutation(len(data))
    classes, members = np.unique(_labels(labels, len(data))[order], return_inverse=True)
    if len(classes) < 2:
        return None
    with threadpool_limits(1):
        nearest = NearestNeighbors(n_neighbors=neighbors).fit(data[order]).kneighbors(return_distance=False)
    votes = np.zeros((len(data), len(classes)))
    for rank in range(neighbors):
        votes[np.arange(len(data)), members.reshape(-1)[nearest[:, rank]]] += 1 + 0.5 ** (rank + 2) / neighbors
    return float((votes.argmax(axis=1) == members.reshape(-1)).mean())


def _matrix(values: ArrayLike, name: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        matrix = np.asarray(values, dtype=np.float32)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InvalidArgumentError(
            f"{name} has shape {list(matrix.shape)}: give [N, D] with N and D at least 1 (flatten maps first)"
        )
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        kind = "NaN" if np.isnan(matrix).any() else "infinity"
        raise InvalidArgumentError(
            f"{name} contains {kind} in {int(bad.sum())} of {len(matrix)} rows: nothing can be placed by it"
        )
    return matrix


def _like(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    matrix = _matrix(values, "the reference")
    if matrix.shape != shape:
        raise InvalidArgumentError(
            f"the reference has shape {list(matrix.shape)}, the points {list(shape)}: give the same samples"
        )
    return matrix


def _labels(labels: ArrayLike, count: int) -> NDArray[Any]:
    values = np.asarray(labels)
    if values.shape != (count,):
        raise InvalidArgumentError(
            f"labels have shape {list(values.shape)} for {count} vectors: give one class per vector"
        )
    return values


def _standardize(matrix: NDArray[Any]) -> tuple[Floats, float]:
    """Centered and divided by the largest deviation, so that squares neither overflow nor vanish; that deviation."""
    centered = matrix - matrix.mean(axis=0, dtype=np.float64)
    scale = float(np.abs(centered).max())
    return np.asarray(centered / (scale or 1.0), dtype=np.float32), scale
