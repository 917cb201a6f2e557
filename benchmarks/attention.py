"""What recorded attention costs on top of the pass that all views share, in units of one forward and backward (fb).

Operations are counted by torch's counter of floating-point operations, which sees matrix products; seconds are the
least of several rounds of processor time on one thread.

    python benchmarks/attention.py [--images 4] [--rounds 3] [--models vit_tiny_patch16_224 vit_base_patch16_224]
"""

import argparse
import time

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_viz.hooks import observe

PARTS = {"nothing": (), "raw": ("rows",), "rollout": ("rollout",), "both": ("rows", "rollout")}


def operations(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def seconds(run, rounds):
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return min(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224", "vit_base_patch16_224"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        model, x = timm.create_model(name).eval(), torch.randn(options.images, 3, 224, 224)

        def look(parts, model=model, x=x):
            observe(model, x, 0, layers="blocks.*", input_gradient=True, attention=parts)

        look(())
        counted = {arm: operations(lambda parts=parts: look(parts)) for arm, parts in PARTS.items()}
        timed = {arm: seconds(lambda parts=parts: look(parts), options.rounds) for arm, parts in PARTS.items()}
        for arm in list(PARTS)[1:]:
            more = [100 * (values[arm] / values["nothing"] - 1) for values in (counted, timed)]
            words = f"{more[0]:.1f} % of fb's operations, {more[1]:.1f} % of its time"
            print(f"{name}, {options.images} images, {arm}: {words}")


if __name__ == "__main__":
    main()
