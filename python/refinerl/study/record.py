"""The file study.yaml of a study's folder: what its runs were made by. Another study, version or setting is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from refinerl import __version__
from refinerl.config import Config
from refinerl.data.files import write
from refinerl.errors import UserError, first_of
from refinerl.run import recipe
from refinerl.study import runs
from refinerl.study.plan import Plan, label

SCHEMA = 1
NAME = "study.yaml"


@dataclass(frozen=True)
class Record:
    """The origin of a folder's runs."""

    study: str
    refinerl: str
    """Version of the package."""
    sources: str
    """Hash of the package's files that a run depends on."""
    title: str
    recipe: str
    seeds: tuple[int, ...]
    """Every seed that was asked for, over all calls."""
    arms: Mapping[str, Mapping[str, Any]]
    """Knobs of each arm that differ from their defaults, without the grid's and the seed."""
    grids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuning: Mapping[str, Any] | None = None
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The point of its grid that each tuned arm runs with."""
    compare: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(plan: Plan) -> Record:
        """Describe the runs of a plan."""
        study = plan.study
        return Record(
            study=plan.name,
            refinerl=__version__,
            sources=sources(),
            title=study.title,
            recipe=" ".join((study.recipe, *plan.overrides)),
            seeds=plan.seeds,
            arms={arm: settings(plan.final(arm, plan.seeds[0], {}).config) for arm in plan.arms},
            grids={arm: dict(study.arms[arm].grid) for arm in plan.arms if study.arms[arm].grid},
            tuning=None if study.tuning is None else study.tuning.model_dump(mode="json"),
            compare=study.compare,
        )

    def joined(self, new: Record) -> Record:
        """Return the record of the folder after a further call: arms and seeds are added."""
        return replace(
            new,
            seeds=tuple(sorted({*self.seeds, *new.seeds})),
            arms={**self.arms, **new.arms},
            grids={**self.grids, **new.grids},
            chosen={**self.chosen, **new.chosen},
        )

    def choosing(self, arm: str, point: Mapping[str, Any]) -> Record:
        """Return the record with the chosen point of an arm's grid."""
        return replace(self, chosen={**self.chosen, arm: point})

    def without(self, arms: Sequence[str]) -> Record:
        """Return the record without some arms."""

        def kept(some: Mapping[str, Any]) -> dict[str, Any]:
            return {arm: value for arm, value in some.items() if arm not in arms}

        return replace(self, arms=kept(self.arms), grids=kept(self.grids), chosen=kept(self.chosen))

    def save(self, output: Path) -> None:
        """Write study.yaml into the study's folder.

        Raises:
            OSError: it cannot be written.
        """
        values = {"schema": SCHEMA, **_plain(asdict(self))}
        write(output / NAME, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))

    @staticmethod
    def read(output: Path) -> Record | None:
        """Read a folder's study.yaml; None if there is none.

        Raises:
            UserError: it is damaged, or another version of refinerl wrote it.
        """
        path = output / NAME
        if not path.exists():
            return None
        try:
            values = yaml.safe_load(path.read_text("utf-8"))
            schema = values.pop("schema", None)
        except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read ({type(error).__name__}): choose another --output-dir") from error
        if schema != SCHEMA:
            raise UserError(
                f"{path} has schema {schema}, this version of refinerl reads {SCHEMA}: another one wrote it; choose "
                "another --output-dir"
            )
        try:
            record = Record(**values)
            return replace(record, seeds=tuple(record.seeds), compare=tuple((a, b) for a, b in record.compare))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}): choose another --output-dir") from error


def continued(old: Record, new: Record, output: Path) -> Record:
    """Return the record of a folder whose runs go on.

    Raises:
        UserError: the folder's runs are another study's, another version's, or have other settings. The message says
            what differs, and what to do.
    """
    if old.study != new.study:
        raise UserError(f"{output} holds the study {old.study!r}, not {new.study!r}: choose another --output-dir")
    if (old.refinerl, old.sources) != (new.refinerl, new.sources):
        raise UserError(
            f"the runs in {output} were made by refinerl {old.refinerl} (sources {old.sources}), this is "
            f"{new.refinerl} ({new.sources}): choose another --output-dir, or run all of them anew with --redo all"
        )
    for arm in new.arms:
        if arm in old.arms and (changed := _changes(old, new, arm)):
            raise UserError(
                f"arm {arm!r} has runs in {output} with other knobs ({', '.join(changed)}): choose another "
                f"--output-dir, or run the arm anew with --redo {arm}"
            )
    if old.tuning != new.tuning and (tuned := [arm for arm in new.grids if arm in old.grids]):
        raise UserError(
            f"the arms {', '.join(tuned)} were tuned in {output} with other seeds or knobs: choose another "
            f"--output-dir, or run them anew with --redo {','.join(tuned)}"
        )
    for arm, point in new.chosen.items():
        if arm in old.chosen and old.chosen[arm] != point:
            raise UserError(
                f"arm {arm!r} has runs in {output} with {label(old.chosen[arm])}, the band was measured with "
                f"{label(point)}: choose another --output-dir, or run the arm anew with --redo {arm}"
            )
    return old.joined(new)


def _changes(old: Record, new: Record, arm: str) -> list[str]:
    """List the knobs of an arm that differ, as `key: old -> new`; those of its grid too."""
    before, after = (
        {**record.arms[arm], **{f"grid.{knob}": values for knob, values in record.grids.get(arm, {}).items()}}
        for record in (old, new)
    )
    every = {**before, **after}
    nothing = "the default"
    return [
        f"{key}: {before.get(key, nothing)} -> {after.get(key, nothing)}"
        for key in every
        if before.get(key, nothing) != after.get(key, nothing)
    ]


def check_free(output: Path, record: Record | None) -> None:
    """Check that a folder is free for a study, or holds one already.

    Raises:
        UserError: it holds something else.
    """
    if record is not None or not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output} is a file: choose another --output-dir")
    strangers = sorted(path for path in output.iterdir() if not path.name.startswith("."))
    if strangers:
        old = next((path.parent for path in sorted(output.rglob("config.yaml"))), None)
        what = f"{old} is a run of an older study" if old is not None else f"{strangers[0]} is there"
        raise UserError(f"{output} holds no study of this version, but {what}: choose another --output-dir")


def check_run(output: Path, folder: Path, config: Config) -> None:
    """Check that a run's folder, if it exists, belongs to this configuration.

    Raises:
        UserError: it does not; the message names the folder and the first difference.
    """
    place = output / folder
    if not runs.is_begun(place):
        return
    try:
        old = recipe.load_run(place)
    except UserError as error:
        raise UserError(
            f"{place} is a run of an older study, as its configuration shows ({first_of(str(error))}): choose "
            "another --output-dir, or remove that folder"
        ) from error
    changed = [line for line in recipe.differences(old, config) if not line.startswith("chat_template_date:")]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{place} is a run of an older study, with {changed[0]}{more}: choose another --output-dir, or remove that "
            "folder"
        )


def settings(config: Config) -> dict[str, Any]:
    """Return the knobs of a configuration that differ from their defaults, by dotted key, without the seed."""
    defaults = dict(_flat(recipe.load(None).model_dump(mode="json")))
    mine = dict(_flat(config.model_dump(mode="json")))
    return {key: value for key, value in mine.items() if key != "seed" and defaults.get(key, ...) != value}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def sources() -> str:
    """Hash the package's files that a run depends on, to twelve digits: all but the study's own and the study files.

    In a checkout the version stays as it is while the sources change.
    """
    home = Path(str(resources.files("refinerl")))
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*")):
        place = path.relative_to(home)
        own = place.parent == Path("study") or place.parts[:2] in (("recipes", "studies"), ("study", "demo"))
        if path.is_file() and not own and "__pycache__" not in place.parts and not place.name.startswith("."):
            digest.update(f"{place.as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _plain(value: Any) -> Any:
    """Turn tuples into lists, which YAML has."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
