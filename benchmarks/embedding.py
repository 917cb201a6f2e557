"""Warm starts against cold ones: how far points move, how long it takes, how far the picture can be believed.

A small LeNet learns scikit-learn's digits (32 x 32); its last hidden layer's activations of 797 held-out samples are
drawn at logarithmic steps and at epochs. Cold and warm starts alternate in one process on one thread; times
are CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/embedding.py [--nets 3] [--layer -2]
"""

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from lightning_viz import embedding

EPOCH = 32  # updates
SCHEDULES = {"logarithmic": [0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 320], "epochs": [EPOCH * e for e in range(11)]}


def record(seed: int) -> tuple[dict[int, dict[int, np.ndarray]], np.ndarray]:
    """Activations ``[step][layer]`` of held-out samples while the net learns, and their labels."""
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    images = functional.interpolate(torch.tensor(images).float().view(-1, 1, 8, 8) / 16, size=32, mode="bilinear")
    labels = torch.tensor(labels)
    order = torch.randperm(len(images))
    held, rest = order[:797], order[797:]
    net = nn.Sequential(
        *(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    wanted = sorted({step for steps in SCHEDULES.values() for step in steps})
    seen: dict[int, dict[int, np.ndarray]] = {}
    step = 0
    while True:
        for batch in rest[torch.randperm(len(rest))].split(32):
            if step in wanted:
                with torch.no_grad():
                    hidden = net[:-1](images[held])
                    seen[step] = {-2: hidden.numpy(), -1: net[-1](hidden).numpy()}
            if step == wanted[-1]:
                return seen, labels[held].numpy()
            optimizer.zero_grad()
            functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
            step += 1


def timed(vectors: np.ndarray, engine: str, previous: np.ndarray | None = None) -> tuple[embedding.Embedding, float]:
    start = time.process_time()
    return embedding.tsne(vectors, engine=engine, previous=previous), time.process_time() - start


def spread(values: list[float]) -> str:
    return f"{np.median(values):7.3f} median, {min(values):7.3f} to {max(values):7.3f} (n = {len(values)})"


def compare(frames: dict[int, np.ndarray], engine: str, labels: np.ndarray, verbose: bool) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    cold = warm = None
    for step, vectors in frames.items():
        if cold is None or warm is None:
            cold = warm = timed(vectors, engine)[0].points
            continue
        again, cold_time = timed(vectors, engine)
        on, warm_time = timed(vectors, engine, warm)
        turned = embedding.procrustes(again.points, cold)
        row = {
            "step": step,
            "cold moved": float(np.linalg.norm(turned - cold, axis=1).mean()),
            "warm moved": float(np.linalg.norm(on.points - warm, axis=1).mean()),
            "cold trust": embedding.trustworthiness(vectors, again.points) or 0.0,
            "warm trust": embedding.trustworthiness(vectors, on.points) or 0.0,
            "cold KL": again.divergence or 0.0,
            "warm KL": on.divergence or 0.0,
            "cold s": cold_time,
            "warm s": warm_time,
            "cold k-NN": embedding.knn_accuracy(again.points, labels) or 0.0,
            "warm k-NN": embedding.knn_accuracy(on.points, labels) or 0.0,
        }
        if verbose:
            print("   ", "  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
        rows.append(row)
        cold, warm = turned, on.points
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=int, default=3)
    parser.add_argument("--layer", type=int, default=-2, choices=[-2, -1], help="last hidden (-2) or last (-1)")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    found: dict[tuple[str, str], list[list[dict[str, float]]]] = {}
    for seed in range(arguments.nets):
        seen, labels = record(seed)
        for layer, name in [(-2, "last hidden layer"), (-1, "last layer")]:
            first, *_, last = (embedding.knn_accuracy(frame[layer], labels) or 0.0 for frame in seen.values())
            print(f"net {seed}: held-out k-NN accuracy of the {name}: {first:.3f} -> {last:.3f} ({last - first:+.3f})")
        for schedule, steps in SCHEDULES.items():
            frames = {step: seen[step][arguments.layer] for step in steps}
            for engine in ("sklearn", "opentsne"):
                if arguments.verbose:
                    print(f"  {schedule}, {engine}")
                rows = compare(frames, engine, labels, arguments.verbose)
                found.setdefault((engine, schedule), []).append(rows)

    for (engine, schedule), runs in found.items():
        rows = [row for run in runs for row in run]

        def total(name: str, run: list[dict[str, float]]) -> float:
            return sum(row[name] for row in run)

        print(f"\n{engine}, {schedule} steps, warm against cold")
        for name in ("moved", "s"):
            each = [row[f"warm {name}"] / row[f"cold {name}"] for row in rows]
            nets = [total(f"warm {name}", run) / total(f"cold {name}", run) for run in runs]
            print(f"  {name:5}  ratio per step {spread(each)}\n  {name:5}  ratio per net  {spread(nets)}")
        for name in ("trust", "KL", "k-NN"):
            print(f"  {name:5}  difference     {spread([row[f'warm {name}'] - row[f'cold {name}'] for row in rows])}")
        over = sorted({int(row["step"]) for row in rows if row["warm moved"] > 0.5 * row["cold moved"]})
        print(f"  steps at which, in some net, points moved more than half as far: {over or 'none'}")


if __name__ == "__main__":
    main()
