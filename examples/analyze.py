"""What `lightning-viz analyze` does, from Python: the run that `digits.py` left behind, into a report."""

import argparse

from digits import Digits, LeNet

from lightning_viz.analysis import analyze


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="runs/digits", help="folder with checkpoints, or some of them")
    parser.add_argument("--out", default="runs/analysis", help="folder for the report and TensorBoard's files")
    options = parser.parse_args()
    report = analyze(options.run, model=LeNet, data=Digits(), out=options.out, progress=say)
    print(f"Open {report}, or: tensorboard --logdir {options.out}/tensorboard --samples_per_plugin=images=1000")


def say(part, done, total):
    print(f"{done} of {total}: {part}")


if __name__ == "__main__":
    main()
