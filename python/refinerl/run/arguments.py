"""The command line of `refinerl.train`, parsed before torch is imported, so that help and errors appear at once."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console

from refinerl import __version__
from refinerl.config import DEFAULT, Config
from refinerl.config.synonyms import ours
from refinerl.contracts.options import COMMON, Options, default_of
from refinerl.contracts.plugins import Kind, names, resolve
from refinerl.data.terminal import safe
from refinerl.engines.launched import Launched
from refinerl.errors import UserError
from refinerl.run import recipe
from refinerl.run.mistakes import knobs as knob_names


def answer_early(arguments: Sequence[str]) -> None:
    """End the process if the command line alone decides the outcome: no arguments, `--help`, `--list`, or an error.

    One of several ranks does nothing here: ranks end together and print the reason once.
    """
    try:
        if Launched.read() is not None:
            return
    except UserError as error:
        if os.environ.get("SLURM_PROCID", "0") == "0":  # only one of srun's tasks prints it
            print(f"error: {safe(str(error))}", file=sys.stderr)
        sys.exit(2)
    if not arguments:
        introduce(Console())
        sys.exit(2)
    try:
        args = parse(arguments)
        if args.list:
            show_recipes(Console())
            sys.exit(0)
        name, overrides = split(args.words)
        if names_recipe(args.words) or not args.resume:
            recipe.load(name, overrides)
        elif args.output_dir is not None:
            check_run(args.output_dir)
            recipe.load_run(args.output_dir, overrides)
    except UserError as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        sys.exit(2)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line into `words` (recipe, parts and overrides) and its options.

    Raises:
        UserError: it is empty, a knob is written as an option, or `--quiet` is combined with an option that prints.
    """
    given = sys.argv[1:] if arguments is None else arguments
    for index, word in enumerate(given):
        _check_dashes(word, given[index + 1 : index + 2])
    parser = _Parser(
        prog="python -m refinerl.train",
        usage="%(prog)s [RECIPE [PART ...]] [key=value ...] [--output-dir DIR] [--resume] [--quiet]\n"
        "                                [--dry-run] [--list]",
        description="Fine-tune a language model with reinforcement learning under a constraint.",
        epilog=EPILOG + "\n".join(knobs(given)) if {"-h", "--help"} & set(given) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = f"a recipe (default: {recipe.DEFAULT_RECIPE}), parts that are merged into it, such as gpus-4, and overrides"
    parser.add_argument("words", nargs="*", metavar="RECIPE, PART, key=value", help=words)
    parser.add_argument("--output-dir", type=_path, metavar="DIR", help="the run's folder (default: runs/RECIPE-TIME)")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the folder")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and a plan, and stop")
    parser.add_argument("--list", action="store_true", help="list the recipes and parts")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # added by DeepSpeed's launcher
    args = parser.parse_intermixed_args(arguments)
    if not any(value for name, value in vars(args).items() if name != "local_rank"):
        raise UserError(
            f"nothing to train is named: choose a recipe, such as {recipe.DEFAULT_RECIPE}; --list shows them all"
        )
    if args.quiet and (args.dry_run or args.list):
        raise UserError(
            f"--quiet is for runs: leave it out with {'--list' if args.list else '--dry-run'}, which prints"
        )
    return args


def _path(word: str) -> Path:
    return Path(word).expanduser()


OPTIONS = ("--output-dir", "--resume", "--quiet", "--dry-run", "--list", "--version", "--help", "--local_rank")


def _check_dashes(word: str, following: Sequence[str]) -> None:
    """Refuse a knob that is written as an option, such as `--trainer.steps=3` or `--model x`.

    Raises:
        UserError: it is one; the message has the word to write.
    """
    option, equals, value = word.partition("=")
    name = option.removeprefix("--")
    if not word.startswith("--") or not name or _abbreviates(option):
        return
    if not equals and following and not following[0].startswith("-"):
        value = following[0]
    snake = name.replace("-", "_")
    known = _known()
    here = None if name in known else ours(snake)
    if here is not None and here.startswith("--"):
        raise UserError(f"{option} is {here} here, such as {here}{' ' + value if value else ''}")
    if here is not None and " " in here:  # a value for their knob need not be one for ours
        raise UserError(f"{option} is {here}; knobs are written without dashes, as key=value")
    if here is not None:
        settings = [here if "=" in here else f"{here}={value or 'VALUE'}"]
    else:
        section = name.partition(".")[0] in Config.model_fields
        found = [name] if section else [knob for knob in known if knob.rpartition(".")[2] == snake]
        settings = [f"{knob}={value or 'VALUE'}" for knob in found]
    if settings:
        raise UserError(f"knobs are written without dashes: {' or '.join(settings)} in place of {word}")


def _known() -> dict[str, None]:
    """Return the dotted names of all knobs, those of the built-in tasks, algorithms and constraints included."""
    kinds: list[Kind] = [cast("Kind", kind) for kind in COMMON]
    parts = [(kind, resolve(kind, part).Options) for kind in kinds for part in names(kind)]
    options = [f"{kind}.{key}" for kind, part in parts for key in part.model_fields]
    return dict.fromkeys([*knob_names(), *options])


def _abbreviates(option: str) -> bool:
    """True for an option or its beginning, as argparse accepts it."""
    return any(known.startswith(option) for known in OPTIONS)


def check_run(folder: Path) -> None:
    """Check that a folder holds a run, which `--resume` without a recipe continues.

    Raises:
        UserError: it does not.
    """
    if (folder / "config.yaml").exists():
        return
    if (folder.parent / "config.yaml").exists():
        raise UserError(f"{folder} is a part of a run: give the run's folder, --output-dir {folder.parent} --resume")
    raise UserError(
        f"{folder} holds no run that --resume could continue: give the folder of one, or name the recipe with which a "
        f"run is to begin there, such as {recipe.DEFAULT_RECIPE} --output-dir {folder} --resume"
    )


EPILOG = "knobs and their defaults (a default that is a knob's name is the value of that knob):\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if "RANK" in os.environ:
            raise UserError(f"{message}; see --help")
        super().error(message)


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """Separate the recipe's name, the default if none is given, from the overrides and parts.

    >>> split(["apps-dapo", "gpus-4", "seed=3"])
    ('apps-dapo', ['gpus-4', 'seed=3'])
    >>> split(["seed=3"])
    ('demo', ['seed=3'])
    """
    if names_recipe(words):
        return words[0], list(words[1:])
    return recipe.DEFAULT_RECIPE, list(words)


def new_folder(recipe_name: str) -> Path:
    """Choose a folder for a run that names none: runs/RECIPE-TIME, numbered if that exists."""
    first = Path("runs") / f"{Path(recipe_name).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    others = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([first], others) if not folder.exists())


def names_recipe(words: Sequence[str]) -> bool:
    """True if the words begin with a recipe; a resumed run that names none has its own, with the overrides."""
    return bool(words) and "=" not in words[0]


def introduce(console: Console) -> None:
    """Print the recipes and examples, for a command line without arguments."""
    width = max(map(len, recipe.recipes()))
    console.print("Name a recipe to train with:\n", highlight=False)
    for name, about in recipe.recipes().items():
        console.print(f"  [bold]{name:{width}}[/]  {about}", highlight=False, soft_wrap=True)
    for command, effect in EXAMPLES.items():
        console.print(f"\n{effect}:\n  {command}", highlight=False, markup=False, soft_wrap=True)
    console.print("\n--help lists every knob, --list the parts that a recipe can be combined with.", highlight=False)


EXAMPLES = {
    "python -m refinerl.train demo": "Train a tiny model to write programs about lists, a minute or two on one core",
    "python -m refinerl.train apps-dapo-dynamic-loss gpus-4 --dry-run": "Print the plan of a run of the paper's "
    "on four GPUs, and start nothing",
}
"""Example commands with their effects."""


def show_recipes(console: Console) -> None:
    """Print each recipe and each part with the first line of its comment."""
    for name, about in recipe.recipes().items():
        console.print(f"[bold]{name}[/]  {about}", highlight=False, soft_wrap=True)
    console.print("\nparts, which may follow a recipe's name (the paper's recipes consist of them):", highlight=False)
    for name, about in recipe.parts().items():
        console.print(f"[bold]{name}[/]  {about}", highlight=False, soft_wrap=True)


NAMES = ("task.name", "algorithm.name", "constraint.name")


def knobs(words: Sequence[str] = ()) -> Iterator[str]:
    """Describe each knob in a line: key, default, effect. Includes the options of classes that `words` name."""
    chosen = dict(word.split(".name=", 1) for word in words if ".name=" in word)
    for name, field in Config.model_fields.items():
        kind = field.annotation
        if not isinstance(kind, type) or not issubclass(kind, BaseModel):
            yield _knob(name, field)
            continue
        yield f"\n{name}: {_first_line(kind)}"
        if issubclass(kind, Options):
            yield f"  {name}.name={DEFAULT[name]}   {', '.join(names(cast('Kind', name)))}, or module:Class of your own"
        yield from (
            _knob(f"{name}.{key}", knob) for key, knob in kind.model_fields.items() if f"{name}.{key}" not in NAMES
        )
        if issubclass(kind, Options):
            for part in names(cast("Kind", name)):
                yield from _own(cast("Kind", name), part, f"{name}.")
        if name in COMMON and ":" in chosen.get(name, ""):
            yield from _own(cast("Kind", name), chosen[name], f"{name}.options.")


def _own(kind: Kind, name: str, prefix: str) -> Iterator[str]:
    """Describe the knobs that a class adds to those of its kind, or whose default it changes."""
    part = resolve(kind, name)
    base = {key: field.default for key, field in COMMON[kind].model_fields.items()}
    yield f" with {kind}.name={name}: {_first_line(part)}"
    for key, field in part.Options.model_fields.items():
        if key not in base or base[key] != field.default:
            yield _knob(f"{prefix if key not in base else f'{kind}.'}{key}", field)


def _knob(key: str, field: FieldInfo) -> str:
    about = (field.description or "").replace("\n", " ")
    default = default_of(field) or field.default
    return f"  {key}={default}" + (f"   {about}" if about else "")


def _first_line(model: type[Any]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]
