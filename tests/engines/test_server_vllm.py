"""A refiner behind a real vLLM server on this machine's CPU, which is stopped, woken and killed while a run asks it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leaks
import refinerl
import toy_rewards
from launching import environment, free_port, needs_vllm
from refinerl.errors import TrainingStoppedError
from toy import Toy, metrics, rollouts


@pytest.fixture
def server(wide_toy: Toy, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Gives its URL and its process group."""
    port = free_port()
    options = ["--model", str(wide_toy.folder / "model"), "--served-model-name", "tiny", "--dtype", "float32"]
    options += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "512"]
    log = tmp_path / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(VLLM_CPU_KVCACHE_SPACE="1"),
            cwd=tmp_path,
            start_new_session=True,  # a group of its own, so that one signal reaches its engine too
        )
    url = f"http://127.0.0.1:{port}/v1"
    shared: set[Path] = set()
    try:
        until = time.monotonic() + 300
        while not _lists_a_model(url):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.2)
        # A killed group leaves its shared memory, as its own cleaner is killed with it.
        shared = leaks.shared_memory([process.pid, *leaks.descendants(process.pid)])
        yield url, process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the leader is not waited for yet, so that the group exists
        process.wait()
        for path in shared:
            path.unlink(missing_ok=True)


def _lists_a_model(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=2) as answer:
            return bool(json.load(answer)["data"])
    except OSError:
        return False


@needs_vllm
@pytest.mark.slow
def test_a_server_that_is_stopped_woken_and_killed(
    server: tuple[str, int], wide_toy: Toy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first step refines all, the second none, the third again; then the run ends with one sentence."""
    url, group = server
    acts = {1: signal.SIGSTOP, 2: signal.SIGCONT, 3: signal.SIGKILL}
    started = time.monotonic()

    def after(row: dict[str, Any]) -> None:
        if row["step"] in acts:
            os.killpg(group, acts[row["step"]])

    options = {"url": url, "timeout": 6, "retries": 0, "max_failures": 12, "temperature": 1}
    with pytest.raises(TrainingStoppedError, match=r"failed 12 requests in a row: the last time it (refused|broke)"):
        refinerl.fine_tune(
            recipe="smollm",
            model=wide_toy.folder / "model",
            prompts=wide_toy.folder / "prompts.jsonl",
            reward=toy_rewards.share_of_a,
            output_dir=tmp_path / "run",
            on_step=after,
            **{f"refiner.{key}": value for key, value in options.items()},
            **{"task.prompt_format": "chat", "generation.max_tokens": 6, "trainer.batch": 8, "trainer.steps": 20},
            **{"algorithm.dynamic_sampling": False, "constraint.accept_truncated": True},
        )
    assert time.monotonic() - started < 120
    rows = metrics(tmp_path / "run")
    assert len(rows) == 4  # in the fourth 8 requests failed, and in the fifth 4 more
    assert [row["refiner/failed"] for row in rows] == [0, 8, 0, 8]
    assert [row["refiner/refined"] for row in rows] == [8, 0, 8, 0]
    assert [row["refiner/tokens"] > 0 for row in rows] == [True, False, True, False]
    assert all(row["refiner/tokens_read"] > 8 * 100 for row in rows[::2])
    texts = [r["refinement"]["completion"]["text"] for r in rollouts(tmp_path / "run", 1)]
    assert len(set(texts)) > 1
    assert set("".join(texts)) <= set("abcdefgh ")
