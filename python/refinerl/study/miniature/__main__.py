"""Make the miniature's files: problems, base model and its card.

python -m refinerl.study.miniature --make FOLDER [--seed N] [--steps N] [--skill S] [--shape near|far] [--from MODEL]

The base is trained on one thread, which takes a few minutes. The command prints its rates on the held-out problems. A
refiner of another skill, for `refiner.model`, is made in less time from the shipped base: --from miniature --steps 150
--skill 0.5. Its corrections have to be sampled (refiner.temperature=1), because greedy ones hide the skill.

With --shape far, the base practically never samples a right line for a hard operation; `miniature-far` is made so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from refinerl import __version__
from refinerl.data.terminal import answered
from refinerl.errors import UserError
from refinerl.study.miniature.operations import SHAPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 for bad input, 130 if interrupted."""
    options = _parse(arguments)
    return answered(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from refinerl.study.miniature.making import make
    from refinerl.study.miniature.training import Training

    if options.steps < 1:
        raise UserError(f"--steps must be at least 1, got {options.steps}")
    if not 0 <= options.skill <= 1:
        raise UserError(f"--skill must be between 0 and 1, got {options.skill:g}")
    settings = Training(
        seed=options.seed, steps=options.steps, skill=options.skill, shape=options.shape, start=options.start
    )
    gates = make(options.make, settings, lambda line: print(line, flush=True))
    for words, rate in gates.lines().items():
        print(f"{rate:>6}  {words}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m refinerl.study.miniature", description=__doc__.split("\n\n")[0])
    parser.add_argument("--make", type=Path, required=True, metavar="FOLDER", help="where base/ and the problems go")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the base's training (default: 0)")
    parser.add_argument("--steps", type=int, default=800, metavar="N", help="of the base's training (default: 800)")
    words = "share of wrong lines that the learnt corrections put right, from 0 to 1 (default: 1)"
    parser.add_argument("--skill", type=float, default=1.0, metavar="S", help=words)
    words = "of the corpus's errors at hard operations: like the right lines, or unlike them (default: near)"
    parser.add_argument("--shape", choices=SHAPES, default="near", help=words)
    parser.add_argument("--from", dest="start", metavar="MODEL", help="a base to continue from, such as miniature")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
