import json
from pathlib import Path
from typing import Any

import pytest

from refinerl.data.conversations import Dialogue, dialogues_of, read_dialogues
from refinerl.errors import UserError

USER = {"role": "user", "content": "Hello?"}
TURNS = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Yes."}, USER]


def write(folder: Path, *rows: Any, name: str = "prompts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_lines_become_dialogues(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "Hi", "bonus": 2}, "\n", {"prompt": TURNS})
    assert read_dialogues(path) == [Dialogue("1", "Hi", {"bonus": 2}), Dialogue("3", tuple(TURNS), {})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "a"}, "jsonl:1: the field prompt is missing"),
        ({"prompt": 3}, "jsonl:1: the field prompt must be a text or a list of messages, got a number"),
        ({"prompt": None}, "jsonl:1: the field prompt must be a text or a list of messages, got null"),
        ({"prompt": "a\ud800b"}, "jsonl:1: the field prompt holds half of a surrogate pair, at 1"),
        ({"prompt": [USER, {"role": "user", "content": "\udc00"}]}, "holds half of a surrogate pair, at 0"),
        ({"prompt": []}, "jsonl:1: the field prompt must be a text or a list of messages"),
        ({"prompt": [{"role": "user"}]}, r"jsonl:1: prompt\[0\] must be a message"),
        ({"prompt": TURNS[:3]}, "jsonl:1: the last message of the prompt must be the user's, got assistant"),
        ("nothing\n", "jsonl:1: not JSON"),
        ("", "is empty: it has no lines"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_dialogues(write(tmp_path, line))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere.jsonl: No such file"):
        read_dialogues(tmp_path / "nowhere.jsonl")


def test_prompt_collection_and_whole_conversations(tmp_path: Path) -> None:
    collection = {"dataset": "a", "context": "Hello?", "context_messages": [USER], "id": "x"}
    (read,) = read_dialogues(write(tmp_path, collection))
    assert read == Dialogue("1", (USER,), {"dataset": "a", "context": "Hello?", "id": "x"})
    answered = [USER, {"role": "assistant", "content": "Yes."}]
    (read,) = read_dialogues(write(tmp_path, {"messages": answered}))
    assert read.prompt == (USER,)


def test_conversations_in_arrays_as_pandas_reads_them() -> None:
    np = pytest.importorskip("numpy")
    assert dialogues_of([{"prompt": np.array([USER], dtype=object)}, {"prompt": (USER,)}])[0].prompt == (USER,)


def test_a_column_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "Why?", "prompt": "not this"})
    assert read_dialogues(path, column="question") == [Dialogue("1", "Why?", {"prompt": "not this"})]
    with pytest.raises(UserError, match=r"jsonl:1: the field ask is missing; the line has question, prompt$"):
        read_dialogues(path, column="ask")
    with pytest.raises(UserError, match=r"the line has text; name the column .* task.column"):
        read_dialogues(write(tmp_path, {"text": "Why?"}))


def test_a_data_set_that_wants_to_run_a_script(tmp_path: Path) -> None:
    folder = tmp_path / "squad"
    folder.mkdir()
    (folder / "squad.py").write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(UserError, match=r"needs to run its script squad.py, which refinerl does not do: convert it"):
        read_dialogues(folder)


def test_a_script_that_datasets_itself_refuses(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "builder.py").write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(UserError, match=r"builder.py needs to run a script, which refinerl does not do: convert it"):
        read_dialogues(tmp_path / "builder.py")


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    found.disable_progress_bars()
    return found


def test_parquet_and_folders_stay_on_disk(datasets: Any, tmp_path: Path) -> None:
    rows = [{"context_messages": [USER], "id": str(i)} for i in range(3)]
    path = tmp_path / "part.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    for source in (path, tmp_path):
        read = read_dialogues(source)
        assert list(read) == [read[0], read[1], read[-1]] == read[:]
        assert (len(read), read[1]) == (3, Dialogue("1", (USER,), {"id": "1"}))
    with pytest.raises(IndexError):
        read[3]
    with pytest.raises(UserError, match=r"has no column prompt; it has context_messages, id"):
        read_dialogues(path, column="prompt")
    with pytest.raises(UserError, match=r"cannot read the data set .* \(split nowhere\)"):
        read_dialogues(tmp_path, split="nowhere")


def test_a_row_that_is_no_prompt_is_named(datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    datasets.Dataset.from_list([{"messages": [{"role": "assistant", "content": "Yes."}]}]).to_parquet(path)
    with pytest.raises(UserError, match=r"part.parquet\[train\] row 0: the last message of the messages must be"):
        read_dialogues(path)[0]


def test_the_hub_out_of_reach(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot read the data set hub:owner/name .*give a local file of JSON lines"):
        read_dialogues("hub:owner/name")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'datasets>=4', or give JSON lines"):
        read_dialogues("hub:owner/name")
