"""The command: `python -m gpu_check`, from the repository's root with `python` and `tests` on PYTHONPATH.

Exit status: 0 every check passed or was skipped, 1 one failed or was not reached, 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpu_check import runner
from gpu_check.checks import ALL, ROUNDS

LIMIT = 480
"""Seconds for everything, on one card of the H100's class."""


def main() -> int:
    """Runs the checks, or one of them in this process."""
    parser = argparse.ArgumentParser(prog="gpu_check", description="Checks refinerl on a machine with a CUDA device.")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU at small sizes, what needs no GPU")
    parser.add_argument("--bundle", type=Path, help="the folder that `make gpu-check-bundle` filled")
    parser.add_argument("--output", type=Path, help="folder for gpu-check.jsonl and gpu-check.log")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all checks together")
    parser.add_argument("--only", nargs="+", metavar="CHECK", choices=ALL, help=", ".join(ALL))
    if sys.argv[1:2] == ["--one"]:  # DEVICE FOLDER MODULE ARGUMENT …, by the runner
        device, folder, *rest = sys.argv[2:]
        runner.run_here(device, Path(folder), *rest)
        return 0
    args = parser.parse_args()
    if args.bundle is not None and not args.bundle.is_dir():
        parser.error(f"--bundle: there is no folder {args.bundle}; `make gpu-check-bundle` fills one")
    if args.bundle is not None and not any(args.bundle.glob("*.whl")):
        parser.error(f"--bundle: {args.bundle} holds no wheels; `make gpu-check-bundle` fills a folder")
    if args.output is not None:
        try:
            args.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(
                f"--output: {args.output} cannot be made ({error.strerror}); name a folder that can be written"
            )
    return runner.run_all(
        ROUNDS,
        "cpu" if args.rehearse else "cuda",
        packages=args.bundle,
        output=args.output,
        limit=args.limit,
        only=args.only,
    )


if __name__ == "__main__":
    sys.exit(main())
