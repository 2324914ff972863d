"""The command `python -m refinerl.report`: a run as a page to read, or as training data.

python -m refinerl.report RUN [--output FILE]                                          one HTML page: curves, rewrites
python -m refinerl.report export RUN --format sft|preference [--output FILE] [--all]   training data in TRL's layouts
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
    done = export(options.run, options.format, options.output, everything=options.all)
    doubles = f", {done.duplicates} duplicates left out" if done.duplicates else ""
    return f"{done.path}: {done.rows} rows from {done.refinements} refinements{doubles}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.report",
        usage="%(prog)s RUN [--output FILE]\n"
        "       %(prog)s export RUN --format sft|preference [--output FILE] [--all]",
        description="Write a run as one HTML page; or, with export, its refinements as training data.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    return parser


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.report export",
        description="Write a run's refinements as training data in TRL's layouts.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--format", choices=("sft", "preference"), required=True)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/FORMAT.jsonl")
    parser.add_argument("--all", action="store_true", help="also export refinements that the filter did not accept")
    return parser
