"""A model card of a run: README.md in the Hugging Face hub's format, with a picture of the curves."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refinerl import __version__
from refinerl.errors import UserError
from refinerl.report.card import citation, method
from refinerl.report.card.method import code, value_of
from refinerl.report.export import save
from refinerl.report.figures import drawing
from refinerl.report.figures.folders import name_of, read
from refinerl.report.figures.series import Drawn, Series
from refinerl.report.metrics import evaluations, training
from refinerl.report.missing import find
from refinerl.report.model import find_model
from refinerl.report.summary import SHOWN, form
from refinerl.report.windows import windows

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

NAME, PICTURE = "README.md", "curves.png"
EVALUATED = {"evaluate/pass@1": "pass@1", "evaluate/reward": "mean reward"}
MOST = 12
"""Evaluations that the table shows, the first, the last and that of the model included."""
PACKAGES = ("torch", "transformers", "peft", "deepspeed", "vllm")


@dataclass(frozen=True)
class Card:
    """A card that was made, and the model that it describes."""

    card: ModelCard
    run: Drawn
    model: Path
    """The model's folder."""
    step: int
    notes: tuple[str, ...]
    """Sentences on what the run lacks."""

    @property
    def title(self) -> str:
        """The name of the model."""
        return name_of(self.run)

    @property
    def curves(self) -> list[Series]:
        """The curves of the picture."""
        return [Series(self.title, (self.run,))]

    def files(self, folder: Path) -> list[Path]:
        """Return the files that `write` writes: FOLDER/README.md, and FOLDER/curves.png if the run has curves."""
        return [folder / NAME, *([folder / PICTURE] if drawing.has_curves(self.curves) else [])]

    def write(self, folder: Path) -> None:
        """Write the files into a folder, which is created.

        Raises:
            MissingError: matplotlib is not installed.
            UserError: a file cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drawing.overview(self.curves, folder / PICTURE)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --output") from error
        save(folder / NAME, str(self.card))


def make(folder: Path, step: str = "final", *, licence: str | None = None) -> Card:
    """Make the card of a run's model.

    Args:
        folder: the run's.
        step: as in `find_model`.
        licence: the hub's identifier of the model's licence; None: the card has none.

    Raises:
        MissingError: jinja2 is not installed.
        UserError: the folder holds no run or no such model, or a file is damaged.
    """
    jinja2 = find("jinja2", "model cards")
    from huggingface_hub import ModelCard

    model, number = find_model(folder, step)
    notes: list[str] = []
    run = read(folder.resolve(), notes)
    title = name_of(run)
    rows = training(run.rows)
    parts = windows(rows) if rows else []
    steps = value_of(run.config, "trainer.steps")
    shown = [name for name in EVALUATED if any(row.get(name) is not None for row in run.rows)]
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).from_string(
        (resources.files("refinerl.report.card") / "card.md").read_text(encoding="utf-8")
    )
    text = template.render(
        title=method.escaped(title),
        model=method.link(run.config.get("model")),
        algorithm=_algorithm(run.config),
        under=method.under(run.config),
        step=number,
        of=f" of {steps}" if steps else "",
        method=" ".join(method.sentences(run.config)),
        settings=method.settings(run.config),
        data=method.data(run.config),
        picture=PICTURE if drawing.has_curves([Series(title, (run,))]) else "",
        windows=[part.label for part in parts],
        table=[
            (label, *(form(part.mean(name)) for part in parts), code(name))
            for name, label in SHOWN.items()
            if any(row.get(name) is not None for row in rows)
        ],
        evaluated=_evaluated(run.config),
        measured=[f"{EVALUATED[name]} (95 % interval)" for name in shown],
        evaluations=[
            (f"**{row['step']}**" if row["step"] == number else row["step"], *(_score(name, row) for name in shown))
            for row in _chosen(evaluations(run.rows), number)
        ],
        use=_use(model),
        versions=", ".join(f"{package} {version}" for package, version in _versions()),
        paper=citation.PAPER,
        software=citation.SOFTWARE,
    )
    head = _metadata(run, model, number, title, licence).to_yaml()
    return Card(ModelCard(f"---\n{head}\n---\n\n{text}"), run, model, number, tuple(notes))


def _metadata(run: Drawn, model: Path, step: int, title: str, licence: str | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    names = [str(held.get("name")) for held in method.constraints(run.config)]
    results = _results(run, step)
    return ModelCardData(
        base_model=method.hub_id(run.config.get("model")),
        datasets=method.datasets(run.config) or None,
        library_name="peft" if (model / "adapter_config.json").is_file() else "transformers",
        license=licence,
        pipeline_tag="text-generation",
        tags=[
            "refinerl",
            "reinforcement-learning",
            *(f"{name}-constraint" for name in names if name != "none" and ":" not in name),
            f"arxiv:{citation.ARXIV}",
        ],
        model_name=title if results else None,
        eval_results=results or None,
    )


def _results(run: Drawn, step: int) -> list[EvalResult]:
    """Return the evaluation of the model, if there was one after its step."""
    from huggingface_hub import EvalResult

    row: Mapping[str, Any] = next((row for row in evaluations(run.rows) if row["step"] == step), {})
    data = method.short(value_of(run.config, "evaluate.path") or value_of(run.config, "evaluate.benchmark") or "task")
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=data.removeprefix("shipped:").removeprefix("hub:"),
            dataset_name=f"{data}, held out",
            metric_type="pass@1" if label == "pass@1" else "reward",
            metric_name=label,
            metric_value=row[name],
        )
        for name, label in EVALUATED.items()
        if row.get(name) is not None
    ]


def _algorithm(config: Mapping[str, Any]) -> str:
    name = str(value_of(config, "algorithm.name"))
    return code(name) if ":" in name else name.upper()


def _evaluated(config: Mapping[str, Any]) -> str:
    """Describe how the evaluations were made."""
    data = value_of(config, "evaluate.path") or value_of(config, "evaluate.benchmark")
    samples, temperature = value_of(config, "evaluate.n"), value_of(config, "evaluate.temperature")
    limit = value_of(config, "evaluate.limit")
    return (
        f"On {method.link(data)}, which the run was not trained on{f', first {limit} rows' if limit else ''}: "
        f"{samples} sample{'' if samples == 1 else 's'} per row at temperature {temperature}. "
        "The row in bold is that of this model."
    )


def _chosen(rows: Sequence[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    """Choose at most `MOST` evaluations, spread over the run, with that of the step."""
    if len(rows) <= MOST:
        return list(rows)
    spread = {round(i * (len(rows) - 1) / (MOST - 2)) for i in range(MOST - 1)}
    return [row for i, row in enumerate(rows) if i in spread or row["step"] == step]


def _score(name: str, row: Mapping[str, Any]) -> str:
    if row.get(name) is None:
        return "–"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f" ({low:.3g} to {high:.3g})"
    return f"{row[name]:.3g}{interval}"


def _use(model: Path) -> str:
    library, name = ("transformers", "AutoModelForCausalLM")
    if (model / "adapter_config.json").is_file():
        library, name = ("peft", "AutoPeftModelForCausalLM")
    return "\n".join(
        (
            *([f"from {library} import {name}"] if library == "peft" else []),
            f"from transformers import {'' if library == 'peft' else f'{name}, '}AutoTokenizer",
            "",
            'place = "OWNER/NAME"  # of this repository, or the folder of the model',
            "tokenizer = AutoTokenizer.from_pretrained(place)",
            f"model = {name}.from_pretrained(place)",
        )
    )


def _versions() -> list[tuple[str, str]]:
    found = [("refinerl", __version__), ("Python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    return found
