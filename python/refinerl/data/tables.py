"""Tables that `datasets` reads: files, folders, what `save_to_disk` wrote, and data sets of the hub.

No code of a data set is run.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from refinerl.data.hub import PACKAGE, PREFIX
from refinerl.errors import UserError, pip_install

FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}
"""Formats of single files, by their last suffix."""
CSV = {"keep_default_na": False, "na_values": [""]}
"""Only an empty cell has no value; otherwise the texts None, NA, null and others would have none either."""
JSON = (".json", ".jsonl")
"""Suffixes of files that refinerl itself reads, and that `datasets` reads where they are streamed."""


def is_table(path: str) -> bool:
    """Return True for what `datasets` reads; any other path is a file of JSON.

    >>> is_table("prompts.csv"), is_table("hub:openai/gsm8k"), is_table("prompts.jsonl")
    (True, True, False)
    """
    return path.startswith(PREFIX) or Path(path).is_dir() or _suffix(path) in (*FORMATS, ".py")


def is_saved(folder: Path) -> bool:
    """Return True for a folder that `save_to_disk` of `datasets` wrote."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def has_splits(path: str) -> bool:
    """Return False for a single file and for shipped data, which have neither splits nor subsets."""
    if path.startswith(PACKAGE) or Path(path).is_file():
        return False
    repository, _, file = path.removeprefix(PREFIX).partition("/")
    if path.startswith(PREFIX):
        return bool(repository) and "/" not in file
    return _suffix(path) not in (*FORMATS, *JSON)


def load_table(path: str, *, split: str = "train", subset: str | None = None, streaming: bool = False) -> Any:
    """Load a table: a `datasets.Dataset`, or a `datasets.IterableDataset` if it is to be streamed.

    Args:
        path: a file (Parquet, CSV with a header, TSV, Arrow; JSON where it is streamed), a folder of such files, a
            folder that `save_to_disk` wrote, or `hub:OWNER/NAME`.
        split: the split of a data set; a single file has none.
        subset: the subset (configuration) of a data set that has several.
        streaming: read rows on demand instead of converting the whole data set first.

    Raises:
        UserError: the package `datasets` is missing; there is no such data, split or subset; it cannot be read, or it
            needs to run a script.
    """
    folder = Path(path)
    if not path.startswith(PREFIX) and not folder.exists():
        raise UserError(f"cannot read {path}: No such file or directory")
    script = folder / f"{folder.resolve().name}.py"
    if script.exists():
        raise UserError(f"{path} needs to run its script {script.name}, which refinerl does not do: {_CONVERT}")
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(
            f"{path} needs the package datasets, which is not installed: {pip_install('datasets')}, or give JSON lines"
        ) from error
    suffix = _suffix(path)
    kind = FORMATS.get(suffix) or ("json" if suffix in JSON else None)
    try:
        if is_saved(folder):
            rows = _saved(datasets.load_from_disk(path), path, split, subset)
            return rows.to_iterable_dataset() if streaming else rows
        if kind and not path.startswith(PREFIX):
            options: dict[str, Any] = dict(CSV) if kind == "csv" else {}
            if suffix == ".tsv":
                options["sep"] = "\t"
            return datasets.load_dataset(kind, data_files=path, split="train", streaming=streaming, **options)
        name = path.removeprefix(PREFIX)
        options = _csv_options(datasets.load_dataset_builder(name, subset).config)
        return datasets.load_dataset(name, subset, split=split, streaming=streaming, **options)
    except UserError:
        raise
    except Exception as error:  # the type depends on the data set, the hub and the network
        raise _explained(error, path, split, subset) from error


def _csv_options(config: Any) -> dict[str, Any]:
    """Return `CSV` for a data set of CSV files that says nothing of missing values itself, else nothing."""
    untold = getattr(config, "keep_default_na", False) and config.na_values is None
    return dict(CSV) if untold else {}


def _suffix(path: str) -> str:
    """Return the last suffix of a path, without that of gzip."""
    return Path(path.removesuffix(".gz")).suffix.lower()


def _saved(data: Any, path: str, split: str, subset: str | None) -> Any:
    """Return the split of what `load_from_disk` gave: a data set, or a dictionary of splits."""
    if subset is not None:
        raise UserError(f"{path} was written by save_to_disk and has no subsets: leave out task.subset, got {subset}")
    if not isinstance(data, dict):
        return data
    if split not in data:
        raise UserError(f"{path} has no split {split}; its splits are {', '.join(data)}: task.split={next(iter(data))}")
    return data[split]


def _explained(error: Exception, path: str, split: str, subset: str | None) -> UserError:
    """Turn an error of `datasets` into a sentence that names what exists."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    told = [_first_line(each) for each in (error, inner)]
    known = _listed(str(error))
    if "BuilderConfig" in told[0] and known:
        return UserError(f"{path} has no subset {subset}; its subsets are {', '.join(known)}: task.subset={known[0]}")
    if "Config name is missing" in told[0] and known:
        return UserError(f"{path} has the subsets {', '.join(known)}: name one of them, task.subset={known[0]}")
    if told[0].startswith(("Unknown split", "Bad split")) and known:
        return UserError(f"{path} has no split {split}; its splits are {', '.join(known)}: task.split={known[0]}")
    if "script" in told[0]:
        return UserError(f"{path} needs to run a script, which refinerl does not do: {_CONVERT} ({told[0]})")
    if "resolve pattern" in told[1] or type(error).__name__ == "EmptyDatasetError":
        return UserError(f"{path} holds no files of data, such as .parquet, .jsonl or .csv")
    if told[1].startswith("No columns to parse") or "corresponds to no data" in told[1]:
        return UserError(f"{path} is empty: it has no rows")
    if Path(path).exists():
        return UserError(f"cannot read {path}: {told[1]}")
    reason = told[0]
    return UserError(
        f"cannot read the data set {path} (split {split}): {reason}. Without a connection to the hub, give a local "
        "file of JSON lines as task.path"
    )


def _listed(message: str) -> list[str]:
    """Return the names in the last list in square brackets of a message.

    >>> _listed("BuilderConfig 'x' not found. Available: ['main', 'socratic']")
    ['main', 'socratic']
    """
    _, _, inside = message.rpartition("[")
    names, bracket, _ = inside.partition("]")
    return [name.strip(" '\"") for name in names.split(",") if name.strip(" '\"")] if bracket else []


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


_CONVERT = "convert it to Parquet or JSON lines first"
