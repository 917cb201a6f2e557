"""A Swiss roll with a dimension of noise: t-SNE unrolls it, PCA only looks at it from the side."""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import make_swiss_roll
from sklearn.neighbors import NearestNeighbors
from torch.utils.tensorboard import SummaryWriter

from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.embedding import extent, pca, tsne
from lightning_viz.render.embedding import embedding_panels
from lightning_viz.render.page import lay_out

PARTS = 8  # of the roll, from its inner end to its outer one
NEIGHBORS = 5


def torn(points, along):
    """Share of nearest neighbors in a picture that lie far from each other along the roll: on another turn of it."""
    near = NearestNeighbors(n_neighbors=NEIGHBORS).fit(points).kneighbors(return_distance=False)
    return float((np.abs(along[near] - along[:, None]) > np.pi / 2).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/swiss_roll", help="folder for the picture and TensorBoard's files")
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    roll, along = make_swiss_roll(options.samples, random_state=0)
    vectors = np.hstack([roll, np.random.default_rng(0).normal(size=(options.samples, 1))])
    parts = np.minimum((along - along.min()) / np.ptp(along) * PARTS, PARTS - 1).astype(int)
    panels = []
    for embedding in (pca(vectors), tsne(vectors, perplexity=30)):
        wrong = torn(embedding.points, along)
        print(f"{embedding.method}: {100 * wrong:.1f} % of neighbors lie on another turn of the roll")
        panels.append((f"{embedding.method} ({100 * wrong:.0f} % torn)", embedding.points, extent(embedding.points)))
    page = embedding_panels(
        "swiss_roll",
        panels,
        layer="Swiss roll with noise",
        labels=parts,
        class_names=("inner end", *map(str, range(2, PARTS)), "outer end"),
        dimension=vectors.shape[1],
        details=["torn: neighbors in the picture that lie on another turn of the roll"],
        reading="Colors follow the roll from its inner to its outer end. A method that unrolls it keeps apart "
        "turns that lie over each other in space.",
    )
    with SummaryWriter(options.out) as writer:
        for place in (FolderWriter(Path(options.out)), TensorBoardWriter(writer)):
            place.picture(lay_out(page), 0)
    print(f"The picture is in {options.out}.")


if __name__ == "__main__":
    main()
