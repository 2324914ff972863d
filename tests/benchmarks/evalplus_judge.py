"""Judge samples with evalplus, in a process that holds nothing else: python evalplus_judge.py < REQUEST > VERDICTS

evalplus forks this process for each part of each sample and limits the fork's address space to 4 GiB, which a test
run's process may have used up already. It does not confine programs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from evalplus.data.mbpp import mbpp_deserialize_inputs
from evalplus.data.utils import stream_jsonl
from evalplus.eval import untrusted_check
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.gen.util import trusted_exec


def prepared(family: str, row: dict[str, Any]) -> dict[str, tuple[list[Any], list[Any], list[float]]]:
    """Make (inputs, expected values, reference's seconds) of both parts as evalplus's evaluate does."""
    source, function = row["prompt"] + row["canonical_solution"], row["entry_point"]
    not_none = family == "mbpp" and function in MBPP_OUTPUT_NOT_NONE_TASKS
    parts = {}
    for part in ("base", "plus"):
        inputs = row[f"{part}_input"]
        if family == "mbpp":
            inputs = mbpp_deserialize_inputs(row["task_id"], inputs)
        parts[part] = (inputs, *trusted_exec(source, inputs, function, True, not_none))
    return parts


def judged(request: dict[str, Any]) -> list[list[bool]]:
    """Return [base, plus] of each sample."""
    family, verdicts = request["family"], []
    rows = {row["task_id"]: row for row in stream_jsonl(request["file"])}
    ready: dict[str, Any] = {}
    for sample in request["samples"]:
        row = rows[sample["task_id"]]
        if sample["task_id"] not in ready:
            ready[sample["task_id"]] = prepared(family, row)
        verdict = []
        for part in ("base", "plus"):
            inputs, expected, seconds = ready[sample["task_id"]][part]
            status, _ = untrusted_check(
                family,
                sample["solution"],
                inputs,
                row["entry_point"],
                expected,
                row["atol"],
                seconds,
                fast_check=True,
                min_time_limit=request["seconds"],
            )
            verdict.append(status == "pass")
        verdicts.append(verdict)
    return verdicts


if __name__ == "__main__":
    json.dump(judged(json.load(sys.stdin)), sys.stdout)
