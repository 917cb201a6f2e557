"""Embeddings of samples: PCA, t-SNE and k-means, aligned from step to step, with measures of their quality.

Functions of arrays, for the drawing process beside training: deterministic for a given seed, without NumPy's global
generator, and on one thread, so that a repeated run draws the same pictures.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.rich_display import html_display

__all__ = ["Embedding", "extent", "kmeans", "knn_accuracy", "pca", "procrustes", "reduce", "trustworthiness", "tsne"]

Floats = NDArray[np.float32]
_Extent = tuple[float, float, float, float]
Engine = Literal["auto", "sklearn", "opentsne"]

_REDUCED = 50  # dimensions, as in van der Maaten and Hinton, 2008
_EXACT = 1000  # samples and dimensions up to which PCA is exact
_GROWTH = 1.25  # margin of the first extent, and factor by which it grows
_INSIDE = 0.98  # of the points, at least, lie within an extent
FEWEST = 30
"""Samples below which PCA takes the place of t-SNE."""


@html_display()
@dataclass(frozen=True)
class Embedding:
    """Positions of samples in two or three dimensions, with the method that computed them.

    Attributes:
        points: position of each sample, ``[N, 2 or 3]``, aligned to the previous step's points if those were given.
        method: ``"t-SNE"``, ``"PCA"``, or ``"constant"`` if all samples are equal and lie on one point.
        divergence: final Kullback-Leibler divergence of t-SNE, in nats; None for other methods.
        warm: whether t-SNE started from the previous step's points.
        perplexity: effective perplexity of t-SNE, reduced for few samples; None for other methods.
        engine: implementation of t-SNE, ``"sklearn"`` or ``"opentsne"``; None for other methods.
    """

    points: Floats
    method: str
    divergence: float | None = None
    warm: bool = False
    perplexity: float | None = None
    engine: str | None = None


def reduce(vectors: ArrayLike, *, dimensions: int = _REDUCED, seed: int = 0) -> Floats:
    """PCA scores: projects samples onto their first principal components, as input of t-SNE, k-NN and the projector.

    Args:
        vectors: one row per sample, ``[N, D]``.
        dimensions: maximum number of components (50, as in van der Maaten and Hinton, 2008).
        seed: of the randomized solver (Halko et al., 2011), used where both N and D exceed 1,000.

    Returns:
        Centered scores, ``[N, min(D, dimensions, N)]``, in the vectors' unit, widest first; each component's largest
        loading is positive.

    Raises:
        InvalidArgumentError: the vectors are no matrix, have no sample, or contain NaN or infinity.
    """
    centered, scale = _standardize(_matrix(vectors, "vectors"))
    count = min(*centered.shape, dimensions)
    with _single_thread():
        if min(centered.shape) > _EXACT and count < 0.5 * min(centered.shape):
            from sklearn.utils.extmath import randomized_svd

            left, singular, loadings = randomized_svd(centered, count, n_iter=7, random_state=seed)
            scores = left * singular
        else:
            scores, loadings = _principal(centered.astype(np.float64), count)
    largest = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.asarray(scores * np.where(largest < 0, -1, 1) * scale, dtype=np.float32)


def _principal(centered: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores ``[N, count]`` and loadings ``[count, D]``, from the smaller of the two matrices of inner products."""
    samples, dimensions = centered.shape
    size = min(samples, dimensions)
    products = centered @ centered.T if samples <= dimensions else centered.T @ centered
    values, vectors = eigh(products, subset_by_index=[size - count, size - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    if samples > dimensions:
        return centered @ vectors, vectors.T
    return vectors * np.sqrt(values.clip(0)), vectors.T @ centered


def pca(vectors: ArrayLike, *, previous: ArrayLike | None = None, dimensions: int = 2, seed: int = 0) -> Embedding:
    """PCA: the first principal components of the samples, aligned to the previous step's points.

    Args:
        vectors: one row per sample, ``[N, D]``.
        previous: the previous step's points, ``[N, dimensions]``.
        dimensions: 2 or 3; filled with zeros if D or N is smaller.
        seed: of the randomized solver.

    Returns:
        The embedding, in the vectors' unit.

    Raises:
        InvalidArgumentError: the vectors contain NaN or infinity, or ``previous`` has another shape.
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
    r"""t-SNE: preserves neighborhoods (van der Maaten and Hinton, 2008), starting from the previous step's points.

    .. math:: \min_y \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad q_{ij} \propto (1 + \|y_i - y_j\|^2)^{-1}

    A cold start is PCA shrunk to a standard deviation of 1e-4 (Kobak and Berens, 2019), exaggeration 12 and learning
    rate N / 12 (Belkina et al., 2019), with openTSNE for 125 iterations and 300 more: half of its own 250 and 500, and
    as trustworthy to 0.0013 (12 neighbors, four layers of a small net, 500 digits, two steps). A warm start from the
    previous points is short: with scikit-learn 250 iterations (its minimum) at a tenth of that package's ``"auto"``
    rate, without exaggeration, which would scatter the points; with openTSNE 50 iterations, the first 20 with
    exaggeration 1.5. Measured in ``benchmarks/embedding.py``.

    Args:
        vectors: one row per sample, ``[N, D]``; more than 50 dimensions are reduced by PCA.
        previous: the previous step's points of the same samples, ``[N, dimensions]``, as start and for alignment.
        perplexity: effective number of neighbors, 30 (both packages' default); at most (N - 1) / 3.
        dimensions: 2 or 3.
        seed: of everything random.
        engine: ``"opentsne"`` (Policar et al., 2024), ``"sklearn"``, or ``"auto"``: openTSNE if it is installed.

    Returns:
        The embedding; by PCA for fewer than 30 samples, on one point if all samples are equal (to 1e-6).

    Raises:
        InvalidArgumentError: the vectors contain NaN or infinity, ``previous`` has another shape, or an option is out
            of range.
        ImportError: openTSNE is requested but not installed.
    """
    if dimensions not in (2, 3) or perplexity <= 0 or engine not in ("auto", "sklearn", "opentsne"):
        raise InvalidArgumentError(
            f"invalid options of tsne: {dimensions=} must be 2 or 3, {perplexity=} positive, {engine=} 'auto', "
            "'sklearn' or 'opentsne'"
        )
    data = _matrix(vectors, "vectors")
    count = len(data)
    start = None if previous is None else _like(previous, (count, dimensions))
    if (np.ptp(data, axis=0) <= 1e-6 * np.abs(data).max(axis=0)).all():  # otherwise t-SNE would show rounding errors
        center = np.zeros(dimensions) if start is None else start.mean(axis=0)
        return Embedding(np.tile(center, (count, 1)).astype(np.float32), "constant")
    if count < FEWEST:
        return pca(data, previous=start, dimensions=dimensions, seed=seed)
    perplexity = min(perplexity, (count - 1) / 3)
    if engine == "auto":
        engine = "opentsne" if importlib.util.find_spec("openTSNE") else "sklearn"
    # Coincident points have no gradient, so a layer that was dead at the previous step gets a cold start.
    warm = start is not None and float(start.std(axis=0).max()) > 1e-2
    scores = _standardize(data)[0]
    if not warm or scores.shape[1] > _REDUCED:  # fewer dimensions would only be turned, which no distance shows
        scores = reduce(scores, seed=seed)
    initial = start if start is not None and warm else _pca_start(scores, dimensions, seed)
    optimize = _opentsne if engine == "opentsne" else _sklearn
    points, divergence = optimize(scores, initial.astype(np.float32), perplexity, seed, warm)
    points = points - points.mean(axis=0) if start is None else procrustes(points, start)
    return Embedding(points.astype(np.float32), "t-SNE", divergence, warm, perplexity, engine)


def _sklearn(data: Floats, start: Floats, perplexity: float, seed: int, warm: bool) -> tuple[Floats, float]:
    from sklearn.manifold import TSNE

    rate = max(len(data) / 40, 5.0) if warm else "auto"  # a tenth: as trustworthy, with a third less movement
    model = TSNE(
        n_components=start.shape[1],
        perplexity=perplexity,
        early_exaggeration=1.0 if warm else 12.0,
        learning_rate=rate,
        max_iter=251 if warm else 1000,  # at 250 scikit-learn does not report the divergence
        init=start,
        random_state=seed,
    )
    with _single_thread():
        return model.fit_transform(data), float(model.kl_divergence_)


def _opentsne(data: Floats, start: Floats, perplexity: float, seed: int, warm: bool) -> tuple[Floats, float]:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    early, exaggeration, late = (20, 1.5, 30) if warm else (125, 12, 300)
    with _single_thread():
        affinities = PerplexityBasedNN(data, perplexity=perplexity, method="exact", n_jobs=1, random_state=seed)
        points: Any = TSNEEmbedding(start, affinities, negative_gradient_method="bh", n_jobs=1, random_state=seed)
        points = points.optimize(n_iter=early, exaggeration=exaggeration, momentum=0.8)
        points = points.optimize(n_iter=late, momentum=0.8)
    return np.array(points, dtype=np.float32), float(points.kl_divergence)


def _pca_start(scores: Floats, dimensions: int, seed: int) -> Floats:
    """PCA as a cold start, with a little noise, because t-SNE cannot leave a line."""
    first = scores[:, :dimensions] / scores[:, 0].std()
    noise = np.random.default_rng(seed).normal(scale=0.01, size=(len(scores), dimensions))
    return np.asarray(1e-4 * (noise + np.pad(first, ((0, 0), (0, dimensions - first.shape[1])))), dtype=np.float32)


def procrustes(points: ArrayLike, reference: ArrayLike) -> Floats:
    r"""Procrustes alignment: rotates, mirrors and shifts points onto a reference, without scaling (Schönemann, 1966).

    .. math:: \min_{Q^\top Q = 1,\, t} \sum_i \|Q^\top y_i + t - r_i\|^2: \qquad Q = U V^\top,\ Y^\top R = U S V^\top

    Args:
        points: ``[N, d]``.
        reference: positions of the same samples, ``[N, d]``.

    Returns:
        The aligned points, ``[N, d]``; their mutual distances are unchanged.

    Raises:
        InvalidArgumentError: the shapes differ, or a value is NaN or infinite.
    """
    source = _matrix(points, "points").astype(np.float64)
    target = _like(reference, source.shape).astype(np.float64)
    centered, center = source - source.mean(axis=0), target.mean(axis=0)
    left, _, right = np.linalg.svd(centered.T @ (target - center))
    return np.asarray(centered @ (left @ right) + center, dtype=np.float32)


def extent(points: ArrayLike, previous: _Extent | None = None) -> _Extent:
    """Extent of the axes, constant over a run: it grows in steps when it no longer holds 98 % of the points.

    The first extent is a square a quarter wider than those points; later ones keep its center, grow by factors of 1.25
    and never shrink, because an extent fitted at every step would move all points whenever the cloud grows during
    training.

    Args:
        points: ``[N, 2 or more]``; the first two columns count.
        previous: the previous step's extent.

    Returns:
        ``(x0, x1, y0, y1)``, a square.

    Raises:
        InvalidArgumentError: the points contain NaN or infinity.
    """
    plane = _matrix(points, "points")[:, :2].astype(np.float64)
    if previous is None:
        margin = (1 - _INSIDE) / 2
        x, y = np.quantile(plane, [margin, 1 - margin], axis=0).mean(axis=0)
        half = _GROWTH * _reach(plane, (x, y)) or 1e-3 * max(1.0, abs(x), abs(y))
    else:
        x, y = (previous[0] + previous[1]) / 2, (previous[2] + previous[3]) / 2
        half = (previous[1] - previous[0]) / 2
        reach = _reach(plane, (x, y))
        if reach <= half:
            return previous
        while half < reach:
            half *= _GROWTH
    return float(x - half), float(x + half), float(y - half), float(y + half)


def _reach(plane: NDArray[np.float64], center: tuple[float, float]) -> float:
    """Half the side of the square around a center that holds as many of the points as an extent must."""
    distances = np.sort(np.abs(plane - center).max(axis=1))
    return float(distances[ceil(_INSIDE * len(plane)) - 1])


def kmeans(vectors: ArrayLike, *, clusters: int, labels: ArrayLike | None = None, seed: int = 0) -> NDArray[np.int64]:
    """k-means: the best of 10 runs (Lloyd, 1982), with clusters numbered like the matching classes.

    Args:
        vectors: one row per sample, ``[N, D]``.
        clusters: number; fewer are returned if fewer samples are distinct.
        labels: integer classes, ``[N]``. Clusters are matched to classes so that most samples agree (Kuhn, 1955), and
            take the number of their class, so that colors agree; a cluster without a class takes the next free number.
        seed: of the starts.

    Returns:
        Each sample's cluster, ``[N]``.

    Raises:
        InvalidArgumentError: the vectors contain NaN or infinity, or there are not as many labels as vectors.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    data, _ = _standardize(_matrix(vectors, "vectors"))
    model = KMeans(min(clusters, len(data)), n_init=10, random_state=seed)
    with _single_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # raised for fewer distinct samples than clusters
        assignment = np.unique(model.fit_predict(data), return_inverse=True)[1].reshape(-1).astype(np.int64)
    if labels is None:
        return assignment
    classes, members = np.unique(_labels(labels, len(data)), return_inverse=True)
    agreement = np.zeros((assignment.max() + 1, len(classes)), dtype=np.int64)
    np.add.at(agreement, (assignment, members.reshape(-1)), 1)
    pairs = dict(zip(*linear_sum_assignment(agreement, maximize=True), strict=True))
    used = {int(value) for value in classes}
    free = (number for number in range(len(agreement) + len(used)) if number not in used)
    numbers = [int(classes[pairs[row]]) if row in pairs else next(free) for row in range(len(agreement))]
    return np.asarray(numbers, dtype=np.int64)[assignment]


def trustworthiness(vectors: ArrayLike, points: ArrayLike, *, neighbors: int = 5) -> float | None:
    """Trustworthiness: how far neighbors in the embedding are neighbors in the layer (Venna and Kaski, 2001).

    Args:
        vectors: the layer's samples, ``[N, D]``.
        points: their positions in the embedding, ``[N, 2 or 3]``.
        neighbors: number of neighbors (5, as in scikit-learn).

    Returns:
        A number in [0, 1]: 1 if all are, about 0.5 by chance; None for at most 2 x ``neighbors`` samples.

    Raises:
        InvalidArgumentError: the numbers of samples differ, or a value is NaN or infinite.
    """
    from sklearn import manifold

    data, places = (_standardize(_matrix(vectors, "vectors"))[0], _standardize(_matrix(points, "points"))[0])
    if len(data) != len(places):
        raise InvalidArgumentError(f"{len(data)} vectors and {len(places)} points; pass one point per vector")
    if len(data) <= 2 * neighbors:
        return None
    with _single_thread():
        return float(manifold.trustworthiness(data, places, n_neighbors=neighbors))


def knn_accuracy(vectors: ArrayLike, labels: ArrayLike | None, *, neighbors: int = 5, seed: int = 0) -> float | None:
    """k-NN accuracy: classifies each sample by its nearest neighbors among all others (leave-one-out).

    Args:
        vectors: one row per sample, ``[N, D]``: a layer's or a picture's.
        labels: classes, ``[N]``.
        neighbors: number of votes (5, as in scikit-learn); ties go to the class of the nearest sample.
        seed: of the random order of samples at the same distance.

    Returns:
        The fraction classified correctly; None without labels, with one class, or with at most ``neighbors`` samples.

    Raises:
        InvalidArgumentError: the vectors contain NaN or infinity, or there are not as many labels as vectors.
    """
    from sklearn.neighbors import NearestNeighbors

    data, _ = _standardize(_matrix(vectors, "vectors"))
    if labels is None or len(data) <= neighbors:
        return None
    order = np.random.default_rng(seed).permutation(len(data))
    classes, members = np.unique(_labels(labels, len(data))[order], return_inverse=True)
    if len(classes) < 2:
        return None
    with _single_thread():
        nearest = NearestNeighbors(n_neighbors=neighbors).fit(data[order]).kneighbors(return_distance=False)
    votes = np.zeros((len(data), len(classes)))
    for rank in range(neighbors):
        votes[np.arange(len(data)), members.reshape(-1)[nearest[:, rank]]] += 1 + 0.5 ** (rank + 2) / neighbors
    return float((votes.argmax(axis=1) == members.reshape(-1)).mean())


def _single_thread() -> Any:
    """One thread of NumPy's, SciPy's and scikit-learn's libraries: all that are loaded, so import first."""
    return _libraries(len(sys.modules)).limit(limits=1)


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """The libraries that have threads. Finding them takes milliseconds, so only if there are more modules.

    Args:
        modules: that are imported.
    """
    return ThreadpoolController()


def _matrix(values: ArrayLike, name: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        matrix = np.asarray(values, dtype=np.float32)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InvalidArgumentError(
            f"{name} has shape {list(matrix.shape)}; pass [N, D] with N and D at least 1 (flatten maps first)"
        )
    invalid = ~np.isfinite(matrix).all(axis=1)
    if invalid.any():
        kind = "NaN" if np.isnan(matrix).any() else "infinity"
        raise InvalidArgumentError(
            f"{name} contains {kind} in {int(invalid.sum())} of {len(matrix)} rows; leave these samples out"
        )
    return matrix


def _like(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    matrix = _matrix(values, "the reference")
    if matrix.shape != shape:
        raise InvalidArgumentError(
            f"the reference has shape {list(matrix.shape)}, the points {list(shape)}; pass the same samples"
        )
    return matrix


def _labels(labels: ArrayLike, count: int) -> NDArray[Any]:
    values = np.asarray(labels)
    if values.shape != (count,):
        raise InvalidArgumentError(
            f"labels have shape {list(values.shape)} for {count} vectors; pass one class per vector"
        )
    return values


def _standardize(matrix: NDArray[Any]) -> tuple[Floats, float]:
    """The matrix centered and divided by the largest deviation, so that squares stay in range; and that deviation."""
    centered = matrix - matrix.mean(axis=0, dtype=np.float64)
    scale = float(np.abs(centered).max())
    return np.asarray(centered / (scale or 1.0), dtype=np.float32), scale
