"""The command `python -m refinerl.report card`: a model card of a run, and the model with it on the hub.

python -m refinerl.report card RUN [--output DIR] [--step last|best|N] [--license ID]
                                   [--push OWNER/NAME [--public]] [--dry-run]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from refinerl.errors import UserError
from refinerl.report.card import making
from refinerl.report.card.hub import Upload


def run(options: argparse.Namespace) -> Iterator[str]:
    """Write the card, and upload it with the model if asked to; yield lines for the console.

    Raises:
        UserError: the run has no model, something cannot be written, or the upload is not possible.
    """
    if options.public and options.push is None:
        raise UserError("--public is for --push OWNER/NAME")
    made = making.make(options.run, options.step, licence=options.license)
    yield from made.notes
    folder = options.output or options.run / "card"
    files = made.files(folder)
    upload = None if options.push is None else Upload.of(options.push, made.model, files, public=options.public)
    if options.dry_run:
        yield f"would write {', '.join(map(str, files))}: the card of the model after step {made.step}"
        if upload is not None:
            yield "would upload " + "\n".join(upload.plan())
        return
    made.write(folder)
    yield f"{folder / making.NAME}: the card of the model after step {made.step}"
    if upload is None:
        return
    try:
        upload.check()
    except UserError:
        yield "would upload " + "\n".join(upload.plan())
        raise
    yield f"{upload.send()}: {len(upload.files)} files"


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m refinerl.report card",
        description="Write a model card of a run, and upload the model with it to the Hugging Face hub.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    made.add_argument("--output", type=Path, metavar="DIR", help="for README.md and curves.png (default: RUN/card)")
    made.add_argument(
        "--step",
        metavar="STEP",
        default="final",
        help="the model: final/ (default), or last, best (by the evaluations), or a checkpoint's step",
    )
    made.add_argument("--license", metavar="ID", help="the model's licence, such as apache-2.0 (default: not said)")
    made.add_argument("--push", metavar="OWNER/NAME", help="upload the model with its card to this repository")
    made.add_argument("--public", action="store_true", help="create the repository as a public one, not a private one")
    made.add_argument("--dry-run", action="store_true", help="say what would be written and uploaded, and stop")
    return made
