"""What a command costs beside the function behind it, called from Python on the same model and samples.

The command as it is run, without its start (imports, model and data): options, the function, pictures, numbers. Each
takes turns with the function alone, on scikit-learn's digits: the median ratio by the clock, and that of the least
times of a processor, which tells more where others use the machine, too. The start's seconds are told beside it.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from turns import in_turns

from lightning_viz.adversarial import pgd
from lightning_viz.cli import source_options
from lightning_viz.cli.commands import command_methods, method_parser, run_method
from lightning_viz.cli.source_options import model_under_study_of, parse
from lightning_viz.dream import fool
from lightning_viz.robustness.corruption_error import compare_corruption_error

SIDE = 28


class Net(nn.Module):
    """Two convolutions, a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32 * (SIDE // 4) ** 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in (self.conv1, self.conv2):
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        return self.fc(x.flatten(1))


def digits() -> TensorDataset:
    from sklearn.datasets import load_digits

    data = load_digits()
    ink = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return TensorDataset(F.interpolate(ink, (SIDE, SIDE), mode="bilinear"), torch.tensor(data.target))


def trained(place: Path) -> None:
    torch.manual_seed(0)
    net, (images, labels) = Net(), digits().tensors
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(5):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    torch.save({"state_dict": net.state_dict(), "global_step": 145}, place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of PGD")
    parser.add_argument("--generations", type=int, default=1200, help="of images that fool")
    parser.add_argument("--images", type=int, default=1000, help="that are corrupted")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    trained(folder / "net.ckpt")
    source = [str(folder / "net.ckpt"), "--model", "commands.Net", "--data", "commands.digits", "--accelerator", "cpu"]
    ascent = ["--samples", "64", "--epsilon", "0.05", "--stop_on_success", "false", "--steps", str(asked.steps)]
    rows = {
        "attack pgd": ascent,
        "dream fool": ["--generations", str(asked.generations)],
        "robustness corruptions": ["--samples", str(asked.images)],
    }
    for name, words in rows.items():
        command, method = name.split()
        entry = command_methods(command)[method]
        options = parse(method_parser(name, entry), [*source, *words, "--out", str(folder / "out"), "--overwrite"])
        started = time.perf_counter()
        subject = model_under_study_of(options)
        start = time.perf_counter() - started
        source_options.model_under_study_of = lambda _options, _config, study=subject: study
        model, count = subject.model, options.samples
        images, labels, pixel_space = subject.images[:count], subject.labels[:count], subject.pixel_space
        functions = {
            "attack pgd": lambda: pgd(
                model,
                images,
                epsilon=0.05,
                stop_on_success=False,
                steps=asked.steps,
                pixel_space=pixel_space,
                progress=False,
            ),
            "dream fool": lambda: fool(
                model, tuple(images.shape[1:]), generations=asked.generations, pixel_space=pixel_space, progress=False
            ),
            "robustness corruptions": lambda: compare_corruption_error(
                {"net": model}, (images, labels), reference="net", pixel_space=pixel_space, progress=False
            ),
        }
        busy: dict[str, list[float]] = {"function": [], "command": []}
        arms = {"function": functions[name], "command": lambda: run_method(name, entry, options)}

        def watched(arm: str) -> None:
            before = time.process_time()
            arms[arm]()
            busy[arm].append(time.process_time() - before)

        found = in_turns({arm: partial(watched, arm) for arm in arms}, "function", asked.rounds)
        least = {arm: min(seconds[1:]) for arm, seconds in busy.items()}  # what others on the machine cost comes on top
        ratio = least["command"] / least["function"]
        print(f"{name}: {found['command']:.3f} times the function's wall time, {ratio:.3f} times its processor time")
        print(f"    the function {least['function']:.1f} s of a processor; the start {start:.1f} s")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
