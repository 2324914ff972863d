"""The paper's recipes against its tables, as the outside METHOD.md has them; and all of them as plans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import refinerl
from outside import METHOD
from refinerl import train
from refinerl.config import Config
from refinerl.run import recipe
from tiny import write_tiny

COLUMNS = {"dialogue-ppo": 0, "apps-ppo": 1, "apps-dapo": 2}
OURS = ("apps-dapo-lora-24gb", "countdown", "demo", "gsm8k-dapo-dynamic", "smollm")
BETS = [name for name in recipe.recipes() if name.startswith("apps-dapo-512")]
PAPERS = [name for name in recipe.recipes() if name not in (*OURS, *BETS)]
GPUS = (8, 4, 2, 1)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.-]*B)")


def family(name: str) -> str:
    return next(prefix for prefix in COLUMNS if name.startswith(prefix))


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    """The rows of “Algorithms (tables 2 and 3 of the paper are the recipes)”, by their first cell."""
    if not METHOD.exists():
        pytest.skip("no outside tables: REFINERL_OUTSIDE names their folder")
    text = METHOD.read_text(encoding="utf-8").split("## Algorithms")[1].split("How to read")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def numbers(cell: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(cell)]


@pytest.mark.parametrize("gpus", GPUS)
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.slow
def test_values_equal_the_papers_tables(table: dict[str, list[str]], name: str, gpus: int) -> None:
    config = recipe.load(name, [f"gpus-{gpus}"])
    ppo, column = "ppo" in name, COLUMNS[family(name)]

    def cell(row: str) -> str:
        return table[row][column]

    assert config.model.endswith(f"/{cell('base model')}")
    assert config.algorithm.name == ("ppo" if ppo else "dapo")
    rates = numbers(cell("actor / critic learning rate"))
    assert [config.trainer.learning_rate, config.critic.learning_rate][: len(rates)] == rates
    assert len(rates) == (2 if ppo else 1)
    assert [config.trainer.epochs, config.algorithm.epochs] == numbers(cell("epochs, PPO epochs"))
    batch, mini, *accumulation = numbers(cell("batch, minibatch, accumulation"))
    assert config.trainer.batch == config.trainer.minibatch == batch
    assert (config.trainer.micro_batch or 0) * gpus == mini
    if ppo:
        assert accumulation == [batch / mini]
    assert [config.algorithm.samples_per_prompt] == numbers(cell("samples per prompt"))
    assert [config.trainer.steps] == numbers(cell("iterations"))
    clip = numbers(cell("clip ratio (low, high)"))
    assert [config.algorithm.clip_low, config.algorithm.clip_high] == (clip * 2)[:2]
    if ppo:  # DAPO has neither a discount nor a critic
        assert [config.algorithm.gamma, config.algorithm.lam] == numbers(cell("γ, λ"))
        assert [config.algorithm.value_clip] == numbers(cell("value clip"))


@pytest.mark.parametrize("name", PAPERS)
def test_the_constraint_is_the_one_in_the_name(table: dict[str, list[str]], name: str) -> None:
    constraint, column = recipe.load(name).constraint, COLUMNS[family(name)]
    rest = name.removeprefix(family(name)).lstrip("-") or "none"
    kind, apply = constraint.name, constraint.apply
    if rest == "none":
        assert (kind, constraint.beta) == ("none", 0)
    elif rest in ("static", "kl"):
        assert (kind, apply, constraint.estimator) == ("static", "reward", "k1")
        assert [constraint.beta] == numbers(table["β static"][column])
    else:
        word = rest.split("-")
        assert (kind, apply) == ("dynamic", word[1])
        assert constraint.accept == ("all" if rest.endswith("no-filter") else "better")
        main = numbers(table["β dynamic"][column])
        assert ([constraint.beta] == main) != ("beta" in word)
        if "beta" in word:
            assert constraint.beta == float(rest.split("beta-")[1])


def test_every_recipe_that_was_asked_for_is_there() -> None:
    constraints = ("none", "static", "dynamic-reward", "dynamic-loss")
    wanted = {f"{task}-ppo-{constraint}" for task in ("dialogue", "apps") for constraint in constraints}
    wanted |= {"apps-dapo", "apps-dapo-kl", "apps-dapo-dynamic-reward", "apps-dapo-dynamic-loss"}
    ablations = {name for name in PAPERS if "-beta-" in name or name.endswith("-no-filter")}
    assert set(PAPERS) == wanted | ablations
    assert {name.partition("-beta-")[0] for name in ablations if "-beta-" in name} == {
        "apps-dapo-dynamic-reward",
        "apps-dapo-dynamic-loss",
    }


def test_the_reading_to_bet_on_differs_from_the_papers_in_what_it_says() -> None:
    """So that its arms can be compared with each other, and with the paper's."""
    wanted = {"": {}, "-kl": {}, "-dynamic": {"constraint.beta": 0.01}}
    wanted |= {f"-dynamic-beta-{beta}": {"constraint.beta": float(beta)} for beta in ("1e-3", "1e-1")}
    assert {f"apps-dapo-512{name}" for name in wanted} == set(BETS)
    paper = {"": "apps-dapo", "-kl": "apps-dapo-kl"}
    for name, own in wanted.items():
        config = recipe.load(f"apps-dapo-512{name}")
        differing = {
            line.split(": ")[0]: line.split(" -> ")[1]
            for line in recipe.differences(recipe.load(paper.get(name, "apps-dapo-dynamic-loss")), config)
        }
        expected = {"trainer.batch": 512, "trainer.micro_batch": None, "trainer.epochs": None} | own
        if own:
            expected |= {"constraint.accept": "perfect", "constraint.on_dropped": True}
        assert differing == {key: str(value) for key, value in expected.items()}
        assert config.trainer.batch // config.trainer.minibatch == 8
        assert config.dtype == "bfloat16"


@pytest.mark.parametrize("gpus", GPUS)
@pytest.mark.parametrize("name", [*PAPERS, *BETS])
@pytest.mark.slow
def test_a_dry_run_needs_no_network(name: str, gpus: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([name, f"gpus-{gpus}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "# data: hub:" in out
    assert f"# steps: {recipe.load(name).trainer.steps}, each of " in out
    assert "\n# memory: GiB of " in out
    assert "\n#   fits\n" in out, "not on the card that the part is written for"
    assert (f"on {gpus} ranks" in out) == (gpus > 1)
    assert ("# reward: the model OpenRLHF/Llama-3-8b-rm-mixture" in out) == name.startswith("dialogue")


@pytest.mark.parametrize("gpus", GPUS)
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.slow
def test_other_gpus_leave_the_recipes_zero_stage(name: str, gpus: int) -> None:
    stages = [recipe.load(name, parts).deepspeed["zero_optimization"]["stage"] for parts in ([f"gpus-{gpus}"], [])]
    assert stages[0] == stages[1]


def test_a_part_for_few_gpus_puts_on_the_host_what_has_to_be_there() -> None:
    def places(name: str, gpus: str) -> tuple[str, list[str]]:
        config = recipe.load(name, [gpus])
        zero = config.deepspeed["zero_optimization"]
        parts = [zero.get(part, {}).get("device", "none") for part in ("offload_optimizer", "offload_param")]
        return config.engines.trainer, parts

    assert places("apps-dapo", "gpus-1") == ("torch", ["none", "none"])
    assert places("apps-dapo", "gpus-2") == ("deepspeed", ["none", "none"])
    assert places("apps-ppo-none", "gpus-1") == ("deepspeed", ["cpu", "none"])
    assert places("apps-ppo-none", "gpus-2") == ("deepspeed", ["cpu", "none"])
    assert places("apps-ppo-none", "gpus-4") == ("deepspeed", ["none", "none"])
    assert places("dialogue-ppo-none", "gpus-1") == ("deepspeed", ["cpu", "cpu"])
    assert places("smollm", "gpus-1") == ("torch", ["none", "none"])


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-Coder-1.5B-Instruct"])
def test_the_recipe_for_24_gb_fits_there(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["apps-dapo-lora-24gb", f"model={model}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "a card of 23.5 (NVIDIA GeForce RTX 4090" in out
    assert "\n#   fits\n" in out
    header = (Path(recipe.__file__).parents[1] / "recipes" / "apps-dapo-lora-24gb.yaml").read_text().split("\nbase:")[0]
    if "1.5B" in model:
        for phase in ("generate", "update"):
            (total,) = re.findall(rf"#   {phase} .* ([\d.]+) +\d+ %", out)
            assert f"{total} GiB" in header, (phase, total)


def test_a_dry_run_says_which_names_of_the_hub_it_did_not_look_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path / "model", alphabet="abcdefgh ")
    data = ["task.name=dialogue", "task.path=hub:gsm8k", "task.reward=rule:answer"]
    judged = ["task.reward=model", "reward_model.model=a/judge", "evaluate.every=1", "evaluate.path=hub:b/held-out"]
    said = "\n# not checked, since a plan does not ask the hub: "
    for words, expected in [
        (["demo"], None),
        (["smollm", f"model={tmp_path / 'model'}"], None),
        (["smollm", "model=a/model"], "model=a/model"),
        (["smollm", *data], "task.path=hub:gsm8k"),
        (["smollm", *data, *judged], "task.path=hub:gsm8k, evaluate.path=hub:b/held-out, reward_model.model=a/judge"),
    ]:
        assert train.main([*words, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert (said in out) == (expected is not None), out
        assert expected is None or f"{said}{expected}\n" in out


@pytest.mark.parametrize(("size", "card"), [("0.5B", 23.5), ("1.5B", 47.5)])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("gsm8k-dapo-dynamic", "hub:openai/gsm8k/main/train-00000-of-00001.parquet, read from the hub"),
        ("countdown", "4000 prompts, "),
    ],
)
def test_recipes_for_one_gpu_are_planned_without_a_network_and_fit_there(
    name: str, data: str, size: str, card: float, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"Qwen/Qwen2.5-{size}-Instruct"
    assert train.main([name, f"model={model}", f"device_memory={card}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"# data: {data}" in out
    assert "\n#   fits\n" in out
    assert "benchmark: task\n" in out
    header = (Path(recipe.__file__).parents[1] / "recipes" / f"{name}.yaml").read_text().split("\nbase:")[0]
    assert "# What one should see: " in header
    assert f"{card + 0.5:.0f} GB for the {size} model" in header


@pytest.mark.parametrize("name", PAPERS)
def test_what_the_paper_leaves_open_is_said(name: str) -> None:
    """In the recipe itself, or in the parts that it is made of."""
    folder = Path(refinerl.__file__).parent / "recipes"

    def said(file: Path) -> bool:
        text = file.read_text(encoding="utf-8")
        found = re.search(r"^base: (.*)$", text, re.MULTILINE)
        bases = re.split(r"[\[\], ]+", found[1].strip("[]")) if found else []
        return "Left open by the paper" in text or any(said(next(folder.rglob(f"{base}.yaml"))) for base in bases)

    assert said(folder / f"{name}.yaml")


def test_a_resolved_recipe_of_the_paper_is_a_recipe_of_itself(tmp_path: Path) -> None:
    config = recipe.load("apps-ppo-static", ["gpus-4"])
    (tmp_path / "config.yaml").write_text(recipe.to_yaml(config))
    assert recipe.load(str(tmp_path / "config.yaml")) == config
    assert isinstance(config, Config)
