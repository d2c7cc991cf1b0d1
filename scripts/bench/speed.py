"""Speed: ours and the peers' algorithms side by side, in one run on one machine.

    python scripts/dev.py bench speed [PART ...] [--rounds 5] [--threads N] [--device cuda]

``generator``: the package's BigGAN-deep against ours, at the released models' shapes with random
weights. ``step``: a step of the reference code's AugCLIP, written from its description, against
ours, at 256 px with a ViT-B-32 of random weights, and their peak memory. ``equal_noise``: the same
on the demo pair, and with as many copies as give equal noise of the gradient. ``noise``: how much
of that noise other ways of drawing the changes would save. ``search``: the reference code's search,
ours from nothing, and ours on a seed bank, on the demo pair; and how many of the best by AugCLIP,
of CLIP's first 400, are among its first few. ``batches``: eight prompts as one batch against one
after the other. ``compositions``: the same for three compositions. ``startup``: the import, the
demo models and a picture.

Each comparison runs in turn for some rounds; given are medians, and the ratio's median and range.
A bound is what the products and sums of a call would take at the speed of a large matrix product.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch

from _speed_runs import batches, compositions, generator, search, startup
from _speed_steps import equal_noise, noise, step
from _table import HEAD, line
from _timing import Row

PARTS: dict[str, Callable[[int, torch.device], list[Row]]] = {
    "generator": generator,
    "step": step,
    "equal_noise": equal_noise,
    "noise": noise,
    "search": search,
    "batches": batches,
    "compositions": compositions,
    "startup": startup,
}


def main() -> None:
    """Parse the arguments, run the parts that are asked for, print the table."""
    parser = argparse.ArgumentParser(description="Speed against the peers' algorithms.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", action="store_true", help="end with one JSON line of all rows")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    print(HEAD)
    for part in args.parts or PARTS:
        for row in PARTS[part](args.rounds, args.device):
            print(line(row), flush=True)
            rows.append(row)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
