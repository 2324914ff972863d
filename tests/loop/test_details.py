"""Details of a step's rollouts, as a run writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from refinerl.loop.details import pieces
from toy import Toy, metrics, rollouts, timeless

TEMPERATURE = 0.7  # of the recipe
OPTIONS = ("algorithm.dynamic_sampling=false", "constraint.accept=all")


def sampled(row: dict) -> bool:
    return row["refinement"] is not None and "logprobs" in row["refinement"]["completion"]


@pytest.fixture(scope="module")
def run(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("details") / "run"
    assert toy.run(folder, *OPTIONS, "telemetry.token_costs=3", "trainer.minibatch=4") == 0
    return folder


def test_logprobs_are_those_of_the_policy_that_sampled_y(toy: Toy, run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(toy.folder / "model")  # the policy of the first step
    tokenizer = AutoTokenizer.from_pretrained(toy.folder / "model")
    rows = [row for row in rollouts(run, 1) if sampled(row)]
    assert len(rows) == 3
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"]["messages"], add_generation_prompt=True, return_dict=False)
        for completion in (row["completion"], row["refinement"]["completion"]):
            ids = completion["token_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits.float() / TEMPERATURE, -1)[range(len(ids)), ids]
            assert completion["logprobs"] == pytest.approx(expected.tolist(), abs=1e-3)
            assert "".join(completion["pieces"]) == completion["text"]
            assert len(completion["pieces"]) == len(ids)


def test_every_step_has_a_sample_of_the_accepted_refinements(run: Path) -> None:
    for step in (1, 2):
        rows = rollouts(run, step)
        accepted = [row for row in rows if row["refinement"] and row["refinement"]["accepted"]]
        assert len([row for row in rows if sampled(row)]) == min(3, len(accepted))
        assert all(row in accepted for row in rows if sampled(row))
        assert all(("logprobs" in row["completion"]) == sampled(row) for row in rows)


def test_advantages_are_those_of_the_group(run: Path) -> None:
    for row in rollouts(run, 1):
        group = [other for other in rollouts(run, 1) if other["prompt"]["id"] == row["prompt"]["id"]]
        values = torch.tensor([other["reward"]["value"] for other in group], dtype=torch.float64)
        expected = (row["reward"]["value"] - values.mean()) / (values.std() + 1e-6)
        assert row["advantage"] == pytest.approx(float(expected), abs=1e-3)


def test_details_change_nothing_else(toy: Toy, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    assert toy.run(other, *OPTIONS, "telemetry.token_costs=0", "trainer.minibatch=4") == 0
    assert timeless(other) == timeless(run)
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (run, other)]
    assert weights[0] == weights[1]
    plain = rollouts(other, 1)
    assert not any(sampled(row) for row in plain)
    for row in rollouts(run, 1):
        for completion in filter(None, (row["completion"], (row["refinement"] or {}).get("completion"))):
            completion.pop("pieces", None)
            completion.pop("logprobs", None)
        assert row in plain


def test_a_probe_is_measured_in_its_place(toy: Toy, tmp_path: Path) -> None:
    options = ("constraint.name=none", "refiner.probe=true", "refiner.probe_accept=all", "trainer.steps=1")
    assert toy.run(tmp_path / "run", *options, "algorithm.dynamic_sampling=false") == 0
    rows = [row for row in rollouts(tmp_path / "run", 1) if row.get("probe")]
    measured = [row["probe"]["completion"] for row in rows if "logprobs" in row["probe"]["completion"]]
    assert 0 < len(measured) <= 4
    assert metrics(tmp_path / "run")[0]["refiner/refined"] > 0
    assert json.dumps(measured[0]["logprobs"]) == json.dumps([round(value, 4) for value in measured[0]["logprobs"]])


def test_pieces_of_characters_that_tokens_share() -> None:
    def decode(ids):
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")  # 256 is special

    text = "aé𝒳b"
    ids = [*text.encode(), 256]
    found = pieces(ids, decode)
    assert found == ("a", "", "é", "", "", "", "𝒳", "b", "")
    assert pieces((), decode) == ()
    assert "".join(pieces((97, 0xC3), decode)) == "a\ufffd"
