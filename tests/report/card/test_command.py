"""Model cards, read back by the hub's own parser, and uploads to a server that plays the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from hub import Hub, served
from launching import environment
from refinerl.report import command
from refinerl.report.card import citation
from written import everything, write_run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path: Path, tiny_folder: Path) -> Path:
    """A finished run of ten steps with a model and evaluations."""
    knobs = ("trainer.steps=10", "evaluate.every=5", "evaluate.path=shipped:miniature-held-out")
    return write_run(tmp_path / "my_run", *knobs, rows=everything(10), model=tiny_folder, step=10)


@pytest.fixture(autouse=True)
def _no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's token and addresses are not used."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there


def card(*words: object) -> int:
    return command.main(["card", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    """Standard output, and the sentence of the error."""
    capsys.readouterr()
    assert card(*words) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    return out, line


def test_the_card_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert card(run, "--license", "apache-2.0") == 0
    place = run / "card" / "README.md"
    assert capsys.readouterr().out == f"{place}: the card of the model after step 10\n"
    assert (run / "card" / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    read = ModelCard.load(place)
    assert read.data.to_dict() == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["refinerl", "reinforcement-learning", "dynamic-constraint", "arxiv:2603.18088"],
        "model-index": [
            {
                "name": "my_run",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"name": "shipped:miniature-held-out, held out", "type": "miniature-held-out"},
                        "metrics": [{"type": "pass@1", "value": 0.9, "name": "pass@1"}],
                    }
                ],
            }
        ],
    }
    lines = read.text.splitlines()
    assert "# my\\_run" in lines
    assert "![Curves of the training run](curves.png)" in lines
    assert "| metric | steps 1–3 | steps 8–10 | name |" in lines
    assert "| mean reward | 0.200 ± 0.058 | 0.900 ± 0.058 | `reward/mean` |" in lines
    after = lines[lines.index("| step | pass@1 (95 % interval) |") + 1 :]
    assert after[:4] == ["|---|---|", "| 0 | 0.1 |", "| 5 | 0.5 |", "| **10** | 0.9 |"]
    assert citation.PAPER in read.text
    assert "| `constraint.beta` |" not in read.text
    assert "`miniature` fine-tuned with DAPO by reinforcement learning, under the dynamic constraint (β = " in read.text


def test_references_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "citing.md").read_text()
    assert citation.PAPER in page
    assert citation.SOFTWARE in page


def test_model_and_data_of_the_hub_are_in_the_metadata(tmp_path: Path, capsys) -> None:
    knobs = ("model=Qwen/Qwen2.5-0.5B-Instruct", "task.path=hub:codeparrot/apps/train.jsonl", "task.embedded=null")
    run = write_run(tmp_path / "run", *knobs, "lora.rank=8", rows=everything(2), step=2)
    (run / "final" / "adapter_config.json").write_text("{}")
    assert card(run, "--output", tmp_path / "card") == 0
    data = ModelCard.load(tmp_path / "card" / "README.md").data
    assert (data.base_model, data.datasets, data.library_name) == (
        "Qwen/Qwen2.5-0.5B-Instruct",
        ["codeparrot/apps"],
        "peft",
    )
    assert data.eval_results[0].metric_value == pytest.approx(0.9)


def test_no_local_path_and_no_hostile_name_gets_into_a_card(tmp_path: Path) -> None:
    secret = tmp_path / "secret_place"
    secret.mkdir()
    (secret / "data|`x`.jsonl").write_text("")
    knobs = (f"task.path={secret / 'data|`x`.jsonl'}", "task.embedded=null", f"model={secret}")
    run = write_run(secret / "---\n<script>", *knobs, rows=everything(8), step=8)
    assert card(run, "--output", tmp_path / "card") == 0
    text = (tmp_path / "card" / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "<script>" not in text.replace("\\<script\\>", "").partition("model-index")[0]
    read = ModelCard.load(tmp_path / "card" / "README.md")
    assert "# \\-\\-\\-\\\\n\\<script\\>" in read.text
    assert read.data.model_name == "---\n<script>"


def test_a_run_without_metrics_has_a_card_without_curves(tmp_path: Path, tiny_folder: Path) -> None:
    run = write_run(tmp_path / "run", model=tiny_folder, step=3)
    assert card(run) == 0
    assert [path.name for path in (run / "card").iterdir()] == ["README.md"]
    text = ModelCard.load(run / "card" / "README.md").text
    assert "## Training" not in text
    assert "## Evaluation" not in text


def test_what_has_no_card(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert "is not the folder of a run" in refused(capsys, tmp_path)[1]
    assert "holds no model yet: no checkpoint was written" in refused(capsys, run, "--step", "7")[1]
    (tmp_path / "file").touch()
    assert "cannot write to" in refused(capsys, run, "--output", tmp_path / "file")[1]
    assert "--public is for --push" in refused(capsys, run, "--public")[1]
    assert "--push must be OWNER/NAME on the hub, got 'a/b/c'" in refused(capsys, run, "--push", "a/b/c")[1]
    for package in ("jinja2", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert f"need {package} of the extra `report`" in refused(capsys, run)[1]


def test_a_dry_run_writes_and_sends_nothing(run: Path, tiny_folder: Path, capsys) -> None:
    assert card(run, "--push", "me/mine", "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"would write {run / 'card' / 'README.md'}, {run / 'card' / 'curves.png'}" in out
    names = {"README.md", "curves.png", *(path.name for path in tiny_folder.iterdir())}
    assert [line.strip() for line in out.splitlines()[2:]] == sorted(names)
    assert f"would upload {len(names)} files, " in out
    assert "for http://127.0.0.1:9/me/mine, which is created as a private repository" in out
    assert not (run / "card").exists()
    assert card(run, "--push", "me/mine", "--public", "--dry-run") == 0
    assert "which is created as a public repository" in capsys.readouterr().out


def test_offline_it_says_what_it_would_do(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    out, error = refused(capsys, run, "--push", "me/mine")
    assert "would upload " in out
    assert error.endswith("because there is no token: set HF_TOKEN, or call `hf auth login`")
    assert (run / "card" / "README.md").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    out, error = refused(capsys, run, "--push", "me/mine")
    assert "would upload " in out
    assert "HF_HUB_OFFLINE" in error
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _, error = refused(capsys, run, "--push", "me/mine")
    assert error.startswith("error: cannot upload to me/mine: ")
    assert "hf_secret" not in error


def test_a_hub_that_refuses(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with served(Hub(refuses=403)) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        _, error = refused(capsys, run, "--push", "other/mine")
    assert error.startswith("error: cannot upload to other/mine: ")
    assert "403" in error
    assert hub.files == {}


@pytest.mark.slow
def test_an_upload(run: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """By the real client, which is pointed at the server as a user would point it at a mirror."""
    with served(Hub()) as hub:
        variables = {
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": "hf_secret",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
            "NO_PROXY": "127.0.0.1",
        }
        words = [sys.executable, "-m", "refinerl.report", "card", str(run), "--push", "mine"]
        done = subprocess.run(
            words,
            env={**environment(), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.address}/me/mine: {len(hub.files)} files"
    assert [(one["name"], one["visibility"]) for one in hub.created] == [("mine", "private")]
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.stored  # the weights went as a large file
    card = run / "card"
    expected = {path.name: path.read_bytes() for folder in (tiny_folder, card) for path in folder.iterdir()}
    assert hub.files == expected
    assert hub.validated == [(card / "README.md").read_text()]
