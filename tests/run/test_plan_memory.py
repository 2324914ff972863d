"""The table of a plan's memory, as a user reads it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from refinerl.run import recipe
from refinerl.run.memory.phases import GIB, host
from refinerl.run.plan_memory import memory, run_of

PHASES = ["load", "generate", "refine", "score", "measure", "update", "sync"]


def lines(*overrides: str, name: str = "apps-ppo-dynamic-loss") -> list[str]:
    return list(memory(recipe.load(name, overrides)))


def totals(told: list[str]) -> dict[str, float]:
    rows = [line.split() for line in told if line.split()[0] in PHASES]
    return {row[0]: float(row[8]) for row in rows}


def test_the_table_is_readable():
    told = lines("gpus-4", name="dialogue-ppo-dynamic-loss")
    assert all(len(line) <= 118 for line in told), told
    assert list(totals(told)) == PHASES
    assert sum("largest" in line for line in told) == 1
    columns = [[m.end() for m in re.finditer(r"\S+", line)][1:9] for line in told[1:9]]
    assert len({tuple(ends) for ends in columns}) == 1, "columns are aligned"
    for line in told[2:9]:
        *parts, whole = (0.0 if word == "-" else float(word) for word in line.split()[1:9])
        assert sum(parts) == pytest.approx(whole, abs=0.4)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("apps-ppo-dynamic-loss", ["gpus-4", "device_memory=30"]),
        ("apps-ppo-dynamic-loss", ["gpus-2", "trainer.gradient_checkpointing=false"]),
        ("apps-ppo-dynamic-loss", ["gpus-8", "vllm.memory_policy=0.65"]),
        ("apps-ppo-static", ["gpus-8", "vllm.memory_policy=0.1"]),
        ("apps-ppo-static", ["gpus-8", "vllm.max_model_len=null"]),
        ("apps-dapo-dynamic-loss", ["gpus-1", "device_memory=24"]),
        ("dialogue-ppo-dynamic-loss", ["gpus-8", "let.stage=2"]),
    ],
)
def test_what_it_says_would_fit_fits(name, parts):
    told = lines(*parts, name=name)
    assert "  fits" not in told
    (told_so,) = [line for line in told if line.startswith("  this would fit: ")]
    assert lines(*parts, *told_so.partition(": ")[2].split(), name=name)[-1] == "  fits"


@pytest.mark.parametrize(("apply", "rows"), [("loss", True), ("reward", False)])
def test_refinements_are_rows_of_the_loss_where_the_constraint_that_refines_is(apply, rows):
    """Among several constraints too, whatever the others do."""
    alone = f"constraint.apply={apply}"
    several = f"constraints=[{{name: static, apply: loss}}, {{name: dynamic, apply: {apply}}}]"
    for override in (alone, several):
        run, _ = run_of(recipe.load("apps-dapo-dynamic-loss", [override]))
        assert run is not None
        assert run.constraint_rows == rows, override


@pytest.mark.parametrize(("rank", "stage"), [(0, 1), (16, 0)])
def test_the_stage_in_bfloat16_is_the_trainers(rank, stage):
    """A LoRA policy's adapter is float32 by itself, so that it stays at stage 0."""
    run, _ = run_of(recipe.load("smollm", ["engines.trainer=deepspeed", "dtype=bfloat16", f"lora.rank={rank}"]))
    assert run is not None
    assert run.training.stage == stage


def test_a_run_that_no_knob_saves_is_told_so():
    told = lines("gpus-1", "device_memory=8", name="dialogue-ppo-dynamic-loss")
    assert told[-1].startswith("  not enough on 1 such GPU: ")


def test_the_card_is_the_one_that_is_said_or_here_or_in_the_part(monkeypatch):
    assert "a card of 47.5 (NVIDIA RTX A6000; " in lines()[0]
    here = SimpleNamespace(total_memory=80 * 2**30, name="a large card")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: here)
    assert "a card of 80.0 (a large card, which is here)" in lines()[0]
    assert "a card of 24 (device_memory)" in lines("device_memory=24")[0]
    assert "card" not in lines("device=cpu", name="smollm")[0]


def test_the_card_is_the_one_that_the_run_is_put_on(monkeypatch):
    cards = [SimpleNamespace(total_memory=size * 2**30, name=f"{size} GiB") for size in (24, 80)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    assert "a card of 24.0 (24 GiB, which is here)" in lines()[0]
    assert "a card of 80.0 (80 GiB, which is here)" in lines("device=cuda:1")[0]
    assert "a card of 47.5 (NVIDIA RTX A6000; " in lines("device=cuda:2")[0]  # the part's: there is no such card here


def test_the_ranks_are_those_that_were_started_or_in_the_part(monkeypatch):
    assert "each of 8 GPUs" in lines()[0]
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert "each of 2 GPUs" in lines()[0]


def test_programs_are_counted_on_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    run, _ = run_of(recipe.load("smollm"))
    assert run is not None
    assert run.sandbox == 512 * 2**20
    run, _ = run_of(recipe.load("smollm", ["sandbox.workers=5"]))
    assert run is not None
    assert run.sandbox == 5 * 512 * 2**20


def test_a_model_that_nobody_knows_is_not_guessed(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert lines("model=nobody/has-it") == [
        "memory: unknown, nobody/has-it is neither on this machine nor among the models whose sizes are known here"
    ]
    told = lines("critic.model=nobody/has-it")
    assert told[-2].endswith("known here: the critic model nobody/has-it")
    assert told[-1] == "  what is counted fits"


def test_the_demo_has_a_table_without_a_card():
    told = lines("device=cpu", name="smollm")
    assert set(totals(told)) == {"load", "generate", "refine", "measure", "update", "sync"}
    assert not any("%" in line or "fit" in line for line in told)


SCALING = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_documents_example_is_what_is_printed():
    command, _, told = SCALING.partition("\n$ python -m refinerl.train ")[2].partition("\n```")[0].partition("\n")
    name, *parts = command.removesuffix(" --dry-run").split()
    assert told.splitlines() == lines(*parts, name=name)


@pytest.mark.slow
def test_the_documents_table_of_the_papers_runs_is_the_arithmetic():
    rows = re.findall(r"^\| `([\w-]+-dynamic-loss)` \| (.+) \|$", SCALING, re.MULTILINE)
    assert len(rows) == 3
    for name, row in rows:
        for gpus, cell in zip((1, 2, 4, 8), row.split(" | "), strict=True):
            told = lines(f"gpus-{gpus}", name=name)
            (largest,) = [line.split() for line in told if "largest" in line]
            run, _ = run_of(recipe.load(name, [f"gpus-{gpus}"]))
            assert run is not None
            on_host = sum(p.pinned + p.pageable for part, p in host(run).items() if part != "sandbox")
            assert cell == f"{largest[0]} {largest[8]}; {on_host / GIB:.0f}", (name, gpus)
