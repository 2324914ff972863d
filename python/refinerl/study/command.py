"""The command `python -m refinerl.study`: runs a study, or what is missing of it, and writes what it shows.

python -m refinerl.study STUDY [--output-dir OUT] [--arms A,B] [--seeds 0,1] [--workers N] [--dry-run] [--redo A,B]
                               [--check BAND] [--write-band FILE] [key=value …]
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from refinerl import __version__
from refinerl.data.files import write
from refinerl.data.terminal import answered, safe
from refinerl.errors import UserError
from refinerl.report.export import check_place
from refinerl.report.figures import folders
from refinerl.report.missing import MissingError
from refinerl.run.arguments import new_folder
from refinerl.study import dry_run, record, results, text
from refinerl.study.bands import Bands, write_band
from refinerl.study.demo import command as demo_command
from refinerl.study.file import shipped
from refinerl.study.plan import Plan
from refinerl.study.progress import Progress
from refinerl.study.record import Record
from refinerl.study.runner import Room, Runner, disk_named
from refinerl.study.table import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code.

    0: done; 1: a run failed, or a measure is outside its band; 2: bad input; 130: interrupted.
    """
    args = _parser().parse_intermixed_args(arguments)
    console = Console()
    return answered(lambda: study(args, console), f"interrupted; {KEPT}")


KEPT = "finished runs are kept, the others go on from their last complete step: run the same command again"
"""The end of the message after an interruption."""


def study(args: argparse.Namespace, console: Console) -> int:
    """Run a study as the parsed command line has it; return the exit code.

    Raises:
        UserError: none is named, it cannot be run, or its folder is not its own.
    """
    if not args.words or "=" in args.words[0]:
        raise UserError(f"name a study: {', '.join(shipped()) or 'none is shipped'}, or the path of a .yaml file")
    source, *overrides = args.words
    if args.write_band is not None:
        check_place(args.write_band)
        if args.check is not None and args.check.resolve() == args.write_band.resolve():
            raise UserError(f"--write-band would replace the band that --check reads, {args.check}: name another file")
    plan = Plan.make(source, arms=_names(args.arms), seeds=_numbers(args.seeds), overrides=_overrides(overrides))
    live = _is_demo(args)
    output = args.output_dir or (new_folder(plan.name) if live else Path("runs") / "studies" / plan.name)
    new = Record.of(plan)
    bands = None if args.check is None else Bands.read(args.check, plan.name)
    if bands is not None:
        bands.require(args.check, new)
        for arm in new.grids:
            if arm in bands.chosen:
                new = new.choosing(arm, bands.chosen[arm])
    old = Record.read(output)
    record.check_free(output, old)
    redone = _redone(args.redo, plan, old)
    known = _known(output, old, new, redone)
    if args.dry_run:
        dry_run.show(plan, known, output, dry_run.find_room(plan, args.workers), console, redone)
        return 0
    if live:
        with disk_named(output), _locked(output) as lock:
            known.save(output)
            return demo_command.run(plan, output, console, lock)
    room = Room.find(plan.configs, args.workers)
    with disk_named(output), _locked(output) as lock, Progress(console) as progress:
        results.remove(output, redone)
        known.save(output)
        runner = Runner(plan, known, output, room, progress, lock)
        known = runner.run()
    with disk_named(output):
        table = finish(output, known, plan.study.about, console)
    for failure in runner.failures:
        print(f"failed: {failure.trial.name}: {safe(failure.line)}", file=sys.stderr)
    if args.write_band is not None:
        write_band(args.write_band, table)
        console.print(f"wrote {args.write_band}", highlight=False, markup=False)
    outside = False
    if bands is not None:
        for inside, line in bands.check(table, plan.arms, plan.seeds):
            outside |= not inside
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if runner.failures or outside else 0


def finish(output: Path, known: Record, about: str, console: Console) -> Table:
    """Write table, figures and page of the finished runs, and print the table.

    Raises:
        UserError: a file of a run is damaged, or a file cannot be written.
    """
    found = results.finals(output, known)
    tuning = {arm: results.tuned(output, known, arm) for arm in known.grids}
    table = Table.of(known, found, {arm: points for arm, points in tuning.items() if any(p.results for p in points)})
    write(output / "table.md", text.markdown(table))
    write(output / "table.json", json.dumps(table.as_json(), indent=1) + "\n")
    if not found:
        return table
    text.show(table, console)
    from refinerl.report.figures import drawing  # imports torch, which takes seconds
    from refinerl.study import page

    drawn: Mapping[str, str] = {}
    try:
        written = drawing.draw(folders.find([output]), output / "figures")
        drawn = written.drawings
        for note in written.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
    except MissingError as missing:
        console.print(str(missing), highlight=False, markup=False, soft_wrap=True)

    try:
        place = page.write_page(output, table, found, drawn, about)
        console.print(f"The study's page: {place}", highlight=False, markup=False, soft_wrap=True)
    except MissingError as missing:
        console.print(str(missing), highlight=False, markup=False, soft_wrap=True)
    return table


def _known(output: Path, old: Record | None, new: Record, redone: Sequence[str]) -> Record:
    """Return the record of a folder for its next runs. Raises UserError if its runs are not this study's."""
    kept = None if old is None else old.without(redone)
    return record.continued(kept, new, output) if kept is not None and kept.arms else new


def _redone(names: str | None, plan: Plan, old: Record | None) -> list[str]:
    """Return the arms to run anew. Raises UserError if one is not among the chosen ones."""
    if names == "all":
        return list({**(old.arms if old else {}), **plan.study.arms})
    redone = _names(names) or []
    for name in redone:
        if name not in plan.arms:
            raise UserError(
                f"--redo names {name!r}, which is not an arm of this call: choose of {', '.join(plan.arms)}"
            )
    return redone


def _is_demo(args: argparse.Namespace) -> bool:
    """Return True if the study runs as the demo: with a live view, an end in plain words, and a folder of its own."""
    ordinary = (args.arms, args.seeds, args.workers, args.redo, args.check, args.write_band)
    return bool(args.words[0] == "demo" and not args.dry_run and all(option is None for option in ordinary))


@contextmanager
def _locked(output: Path) -> Iterator[int]:
    """Hold the folder for this process and the runs that it starts; yield the descriptor that they keep open.

    Raises:
        UserError: another study runs in the folder, or it cannot be created.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"cannot create {output}: {error.strerror}; choose another --output-dir") from error
    lock = os.open(output / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UserError(
            f"runs of a study are going on in {output}: wait for their end, or choose another --output-dir"
        ) from error
    try:
        yield lock
    finally:
        os.close(lock)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str | None) -> list[int] | None:
    names = _names(text)
    if names is None:
        return None
    if not names or not all(name.isdecimal() for name in names):
        raise UserError(f"--seeds must be numbers from 0 on, such as 0,1,2, got {text!r}")
    return [int(name) for name in names]


def _overrides(words: Sequence[str]) -> list[str]:
    for word in words:
        if "=" not in word:
            raise UserError(f"{word!r} is not an override (key=value); a study's recipe and parts stand in its file")
    return list(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.study",
        usage="%(prog)s STUDY [--output-dir OUT] [--arms A,B] [--seeds 0,1] [--workers N] [--dry-run] [--redo A,B]\n"
        "       [--check BAND] [--write-band FILE] [key=value ...]",
        description="Run arms × seeds of a recipe side by side, and write a table, figures and a page. Finished runs "
        "are kept, interrupted ones go on.",
        epilog="studies:\n" + "\n".join(f"  {name:12} {about}" for name, about in shipped().items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = "a shipped study's name or the path of a .yaml file, then overrides for every arm"
    parser.add_argument("words", nargs="*", metavar="STUDY, key=value", help=words)
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="OUT",
        help="the study's folder (default: runs/studies/STUDY; of the demo runs/demo-TIME)",
    )
    parser.add_argument("--arms", metavar="A,B", help="the arms to run (default: all)")
    parser.add_argument("--seeds", metavar="0,1", help="the seeds to run (default: the study's)")
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="runs at a time (default: one for each core or GPU)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the runs and their knobs, and stop")
    parser.add_argument("--redo", metavar="A,B", help="remove the runs of these arms (or `all`) and run them anew")
    parser.add_argument(
        "--check", type=Path, metavar="BAND", help="compare the result with a band; exit code 1 outside"
    )
    parser.add_argument("--write-band", type=Path, metavar="FILE", help="write a band from this study's result")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
