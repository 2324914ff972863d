"""A run with real trackers, and what their own readers find of it.

python tracking.py TOY OUTPUT: three steps; the last checkpoint is lost; a resumed run takes steps 3 and 4; hostile
text. Prints JSON: for each tracker that is installed, the metrics as [step, name, value], and the texts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOSTILE = "</script><b>\x1b[2J\u202e\x07\x00 \udc80\n\ttab " + "x" * 1_000_000
"""Text of a model, with a lone surrogate, which UTF-8 cannot hold, and a line of a megabyte."""
NAMES = ("tensorboard", "wandb", "trackio", "mlflow")


def installed() -> list[str]:
    """Return the trackers that are installed."""
    return [name for name in NAMES if importlib.util.find_spec(name) is not None]


def settings(output: Path) -> dict[str, str]:
    """Return the environment in which everything stays in a folder, and nothing asks for a network."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(output),
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(output / "trackio"),
        "MLFLOW_TRACKING_URI": (output / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }


def main(toy_folder: Path, output: Path) -> None:
    """Run, resume, and read."""
    from toy import Toy

    toy = Toy(toy_folder)
    names = installed()
    words = (f"telemetry.trackers=[{','.join(names)}]", "telemetry.project=letters", "checkpoint.every=1")
    words += ("evaluate.every=2", f"evaluate.path={toy_folder / 'held_out.jsonl'}", "telemetry.completions=2")
    words += ("trainer.batch=16", "algorithm.dynamic_sampling=false")
    assert toy.run(output / "run", *words, "trainer.steps=3") == 0
    for lost in ("checkpoint-3", "final"):
        shutil.rmtree(output / "run" / lost)
    assert toy.run(output / "run", *words, "trainer.steps=4", resume=True) == 0
    write_hostile(output / "hostile", names)
    found = {
        name: {part: READERS[name](output, part) for part in ("run", "hostile")} | {"runs": RUNS[name](output)}
        for name in names
    }
    (output / "found.json").write_text(json.dumps(found))


def write_hostile(folder: Path, names: list[str]) -> None:
    """Send a step with hostile text to each tracker."""
    from building import group, refinement
    from refinerl.report.rows import rollout_row
    from refinerl.run.trackers import make_trackers
    from refinerl.run.trackers.examples import example

    rollout = group("a", ([1, 2], 0.0)).rollouts[0]
    row = rollout_row(1, rollout, refinement(rollout, [1, 3], 1.0), selected=True)
    assert row.refinement is not None
    for completion in (row.completion, row.refinement.completion):
        object.__setattr__(completion, "text", HOSTILE)
    folder.mkdir()
    for tracker in make_trackers(names, folder, {"text": "</script>"}, project="letters"):
        tracker.log({"reward/mean": 0.5}, 1)
        tracker.tell([example(row)], 1)
        tracker.close(failed=True)


def read_tensorboard(output: Path, run: str) -> dict[str, Any]:
    """Read as TensorBoard's own server does, which hides what an earlier start wrote after the checkpoint."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(output / run / "tensorboard"), tensor_size_guidance={"scalars": 0, "text": 0})
    events.Reload()
    numbers, texts = [], []
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if "text" in tag:
                texts.append([event.step, value.item().decode()])
            else:
                numbers.append([event.step, tag, value.item()])
    return {"metrics": numbers, "texts": texts}


def read_wandb(output: Path, run: str) -> dict[str, Any]:
    from wandb.proto import wandb_internal_pb2

    numbers, texts = [], []
    for folder in folders_of_wandb(output, run):
        for data in records(next(folder.glob("*.wandb")).read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") != "history":
                continue
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            step = row.get("_step", record.history.step.num)
            if "completions/path" in row:
                table = json.loads((folder / "files" / row["completions/path"]).read_text())
                texts += [[step, dict(zip(table["columns"], cells, strict=True))] for cells in table["data"]]
            numbers += [[step, name, row[name]] for name in row if not name.startswith(("_", "completions/"))]
    return {"metrics": numbers, "texts": texts}


def folders_of_wandb(output: Path, run: str) -> list[Path]:
    """Return the folders of the starts of a run; offline, each start has its own."""
    run_id = json.loads((output / run / "trackers.json").read_text())["wandb"]["id"]
    return sorted((output / "wandb").glob(f"offline-run-*-{run_id}"))


def records(data: bytes) -> Iterator[bytes]:
    """Read the records of a W&B transaction log, which has the layout of LevelDB's: blocks of 32 KiB."""
    position, begun = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        begun += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def read_trackio(output: Path, run: str) -> dict[str, Any]:
    from trackio.sqlite_storage import SQLiteStorage

    numbers, texts = [], []
    for row in SQLiteStorage.get_logs("letters", run):
        numbers += [[row["step"], name, value] for name, value in row.items() if isinstance(value, int | float)]
    for trace in SQLiteStorage.get_traces("letters", run):
        texts.append([trace["step"], trace])
    return {"metrics": [row for row in numbers if row[1] not in ("step", "timestamp")], "texts": texts}


def read_mlflow(output: Path, run: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("letters").experiment_id
    (found,) = [made for made in client.search_runs([experiment]) if made.info.run_name == run]
    run_id = found.info.run_id
    histories = [client.get_metric_history(run_id, name) for name in found.data.metrics]
    numbers = [[metric.step, metric.key, metric.value] for history in histories for metric in history]
    texts = []
    for entry in client.list_artifacts(run_id, "completions"):
        table = json.loads(Path(client.download_artifacts(run_id, entry.path)).read_text())
        step = int(entry.path.rpartition("-")[2].partition(".")[0])
        texts += [[step, dict(zip(table["columns"], cells, strict=True))] for cells in table["data"]]
    return {"metrics": numbers, "texts": texts, "status": found.info.status, "params": found.data.params}


def runs_of_mlflow(output: Path) -> int:
    from mlflow import MlflowClient

    client = MlflowClient()
    return len(client.search_runs([client.get_experiment_by_name("letters").experiment_id]))


def runs_of_trackio(output: Path) -> int:
    from trackio.sqlite_storage import SQLiteStorage

    return len(SQLiteStorage.get_run_records("letters"))


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "trackio": read_trackio, "mlflow": read_mlflow}
RUNS = {
    "tensorboard": lambda output: len(list(output.glob("*/tensorboard"))),
    "wandb": lambda output: len({path.name.rpartition("-")[2] for path in (output / "wandb").glob("offline-run-*")}),
    "trackio": runs_of_trackio,
    "mlflow": runs_of_mlflow,
}
"""The number of runs in each tracker: the run, which was resumed, and the hostile one."""


if __name__ == "__main__":
    os.environ.update(settings(Path(sys.argv[2])))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
