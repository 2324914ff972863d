"""The command `python -m refinerl.report`: a run as a page to read, as training data, or as a model.

python -m refinerl.report RUN [--output FILE]                                          one HTML page: curves, rewrites
python -m refinerl.report export RUN --format sft|preference [--output FILE] [--all]   training data in TRL's layouts
python -m refinerl.report export RUN --format model [--step last|best|N] [--output DIR]        the model after a step
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from refinerl import __version__
from refinerl.data.terminal import safe
from refinerl.errors import UserError
from refinerl.report.export import export
from refinerl.report.model import export_model
from refinerl.report.page import write_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 bad input."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _export_parser().parse_args(words[1:]) if words[:1] == ["export"] else _parser().parse_args(words)
    try:
        print(_export(options) if words[0] == "export" else write_page(options.run, options.output))
    except UserError as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        return 2
    return 0


def _export(options: argparse.Namespace) -> str:
    if options.format == "model":
        if options.all:
            raise UserError("--all is for refinements, with --format sft or preference")
        return export_model(options.run, options.step or "last", options.output, merge=options.merge)
    if options.step is not None or options.merge:
        raise UserError("--step and --merge are for --format model: refinements of all steps are exported")
    done = export(options.run, options.format, options.output, everything=options.all)
    doubles = f", {done.duplicates} duplicates left out" if done.duplicates else ""
    return f"{done.path}: {done.rows} rows from {done.refinements} refinements{doubles}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.report",
        usage="%(prog)s RUN [--output FILE]\n"
        "       %(prog)s export RUN --format sft|preference [--output FILE] [--all]\n"
        "       %(prog)s export RUN --format model [--step last|best|N] [--merge] [--output DIR]",
        description="Write a run as one HTML page; or, with export, its refinements as training data, or its model.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    return parser


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.report export",
        description="Write a run's refinements as training data in TRL's layouts, or its model.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--format", choices=("sft", "preference", "model"), required=True)
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="default: the file RUN/FORMAT.jsonl, or the folder RUN/model-STEP"
    )
    parser.add_argument(
        "--step", metavar="STEP", help="of the model: last (default), best (by the evaluations), or a checkpoint's"
    )
    parser.add_argument("--merge", action="store_true", help="merge a LoRA run's adapter into the model")
    parser.add_argument("--all", action="store_true", help="also export refinements that the filter did not accept")
    return parser
