"""The command `python -m refinerl.report`: runs as a page to read, as figures, as training data, or as a model.

python -m refinerl.report RUN [RUN2 ...] [--output FILE]                               one HTML page: curves, rollouts
python -m refinerl.report RUN [RUN2 ...] --watch [--port N]            the page of runs that go on, served here
python -m refinerl.report RUN [RUN2 ...] --figures DIR                                 the paper's figures, SVG and PNG
python -m refinerl.report card RUN [--push OWNER/NAME]                                 a model card, and the upload
python -m refinerl.report export RUN --format sft|preference [--output FILE] [--all]   training data in TRL's layouts
python -m refinerl.report export RUN --format model [--step last|best|N] [--output DIR]        the model after a step
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from refinerl import __version__
from refinerl.data.terminal import answered, safe
from refinerl.errors import UserError
from refinerl.report.card import command as card
from refinerl.report.export import export
from refinerl.report.figures import drawing
from refinerl.report.model import export_model
from refinerl.report.page import render, write_page
from refinerl.report.watch import PORT, Page, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 bad input, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    name = words[0] if words[:1] and words[0] in COMMANDS else ""
    parser, run = COMMANDS[name]
    options = parser().parse_args(words[1:] if name else words)
    return answered(lambda: _run(run(options)))


def _run(lines: Iterator[str]) -> int:
    for line in lines:
        print(safe(line), flush=True)
    return 0


def _report(options: argparse.Namespace) -> Iterator[str]:
    if options.figures is not None:
        if options.output is not None:
            raise UserError("--output is for the page: --figures DIR names the folder of the figures")
        if options.watch or options.port is not None:
            raise UserError("--watch and --port are for the page: leave them out, or --figures")
        yield from _figures(options)
        return
    if options.watch:
        yield from _watch(options)
        return
    if options.port is not None:
        raise UserError("--port is for --watch")
    yield str(write_page(options.runs, options.output))


def _watch(options: argparse.Namespace) -> Iterator[str]:
    if options.output is not None:
        raise UserError("--output is for a page that is written, and --watch serves one: leave one of them out")
    page = Page(options.runs, lambda script: render(options.runs, [script]))
    yield from serve(page, PORT if options.port is None else options.port)


def _figures(options: argparse.Namespace) -> Iterator[str]:
    written = drawing.write(options.runs, options.figures)
    yield from map(str, written.files)
    yield from written.notes
    if not written.files:
        raise UserError(f"no figure was written: {', '.join(map(str, options.runs))} hold no metrics to draw")


def _export(options: argparse.Namespace) -> Iterator[str]:
    if options.format == "model":
        if options.all:
            raise UserError("--all is for refinements, with --format sft or preference")
        yield export_model(options.run, options.step or "last", options.output, merge=options.merge)
        return
    if options.step is not None or options.merge:
        raise UserError("--step and --merge are for --format model: refinements of all steps are exported")
    done = export(options.run, options.format, options.output, everything=options.all)
    doubles = f", {done.duplicates} duplicates left out" if done.duplicates else ""
    yield f"{done.path}: {done.rows} rows from {done.refinements} refinements{doubles}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.report",
        usage="%(prog)s RUN [RUN2 ...] [--output FILE | --watch [--port N]]\n"
        "       %(prog)s RUN [RUN2 ...] --figures DIR\n"
        "       %(prog)s card RUN [--step last|best|N] [--push OWNER/NAME] [--dry-run]\n"
        "       %(prog)s export RUN --format sft|preference [--output FILE] [--all]\n"
        "       %(prog)s export RUN --format model [--step last|best|N] [--merge] [--output DIR]",
        description="Write one or several runs as one HTML page, or as the paper's figures; with card a model card; "
        "with export a run's refinements as training data, or its model.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="the folder of a run; for figures also of a study"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: RUN/report.html, or report.html here for several runs"
    )
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write the paper's figures 4 to 7 into this folder")
    parser.add_argument("--watch", action="store_true", help="serve the page to browsers of this machine, up to date")
    parser.add_argument("--port", type=int, metavar="N", help=f"of --watch (default: {PORT}; 0: any that is free)")
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


COMMANDS = {
    "": (_parser, _report),
    "card": (card.parser, card.run),
    "export": (_export_parser, _export),
}
"""By name: the parser of the arguments, and the function that does it and yields lines to print."""
