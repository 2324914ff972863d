import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from refinerl.data.conversations import BUFFER, Dialogue, StreamedDialogues, dialogues_of, read_dialogues
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


def test_an_array_of_json_is_read_too(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "bonus": 2}, {"prompt": TURNS, "bonus": "mixed types stay as they are"}]
    for name in ("prompts.json", "prompts.jsonl"):
        path = write(tmp_path, "\n " + json.dumps(rows, indent=2), name=name)
        first, second = read_dialogues(path)
        assert first == Dialogue("1", "Hi", {"bonus": 2})
        assert second == Dialogue("2", tuple(TURNS), {"bonus": "mixed types stay as they are"})
    assert read_dialogues(write(tmp_path, *rows, name="lines.json")) == [first, second]
    packed = tmp_path / "prompts.jsonl.gz"
    packed.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    assert read_dialogues(packed) == [first, second]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"prompt": "a"}, 3]', "prompts.json, item 2: an item must be a JSON object, got a number"),
        ('[{"prompt": "a"}, {"text": "b"}]', "prompts.json, item 2: the field prompt is missing; the line has text"),
        ('[{"prompt": "a"},\n {"prompt": }]', r"prompts.json: not JSON \(Expecting value at line 2, column 13\)"),
        ("[]", "prompts.json is empty"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_dialogues(write(tmp_path, text, name="prompts.json"))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match=r"cannot read .*prompts.jsonl.gz: Not a gzipped file"):
        read_dialogues(tmp_path / "prompts.jsonl.gz")


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
    with pytest.raises(UserError, match=r"has no split nowhere; its splits are train: task.split=train$"):
        read_dialogues(tmp_path, split="nowhere")
    with pytest.raises(UserError, match=r"cannot read .*absent.parquet: No such file"):
        read_dialogues(tmp_path / "absent.parquet")


def test_csv_has_the_types_that_datasets_sees(datasets: Any, tmp_path: Path) -> None:
    text = 'prompt,answer,note\n"Two, or\n""three""?",2,\nWhy?,3,because\n'
    for name, content in (("p.csv", text), ("p.tsv", text.replace(",2,", "\t2\t").replace(",3,", "\t3\t"))):
        (tmp_path / name).write_text(
            content.replace("prompt,answer,note", "prompt\tanswer\tnote") if name == "p.tsv" else content
        )
        read = read_dialogues(tmp_path / name)
        assert list(read) == [
            Dialogue("0", 'Two, or\n"three"?', {"answer": 2, "note": None}),
            Dialogue("1", "Why?", {"answer": 3, "note": "because"}),
        ]
    (tmp_path / "words.csv").write_text("prompt,answer\na,None\nb,NA\nc,null\nd,\n")
    assert [each.columns["answer"] for each in read_dialogues(tmp_path / "words.csv")] == ["None", "NA", "null", None]
    with pytest.raises(UserError, match=r"p.csv has no column ask; it has prompt, answer, note"):
        read_dialogues(tmp_path / "p.csv", column="ask")
    for name in ("words.csv", "words.tsv"):  # as in a single file; they were read as missing
        (tmp_path / name[-3:]).mkdir()
        text = (tmp_path / "words.csv").read_text()
        (tmp_path / name[-3:] / name).write_text(text if name.endswith("csv") else text.replace(",", "\t"))
        found = read_dialogues(tmp_path / name[-3:])
        assert [each.columns["answer"] for each in found] == ["None", "NA", "null", None]
    for text in ("", "\n", "prompt,answer\n"):
        (tmp_path / "empty.csv").write_text(text)
        with pytest.raises(UserError, match=r"empty.csv is empty: it has no rows"):
            read_dialogues(tmp_path / "empty.csv")
    (tmp_path / "torn.csv").write_text("prompt,answer\na,1\nb,2,3\n")
    with pytest.raises(UserError, match=r"cannot read .*torn.csv: .*Expected 2 fields in line 3, saw 3"):
        read_dialogues(tmp_path / "torn.csv")


def test_what_save_to_disk_wrote(datasets: Any, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"prompt": [USER], "level": i} for i in range(3)])
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([2])}).save_to_disk(tmp_path / "both")
    assert list(read_dialogues(tmp_path / "one")) == [Dialogue(str(i), (USER,), {"level": i}) for i in range(3)]
    assert list(read_dialogues(tmp_path / "both")) == list(read_dialogues(tmp_path / "one"))
    assert [each.columns for each in read_dialogues(tmp_path / "both", split="test")] == [{"level": 2}]
    with pytest.raises(UserError, match=r"both has no split dev; its splits are train, test: task.split=train$"):
        read_dialogues(tmp_path / "both", split="dev")
    with pytest.raises(UserError, match=r"one was written by save_to_disk and has no subsets: leave out task.subset"):
        read_dialogues(tmp_path / "one", subset="main")
    (arrow,) = (tmp_path / "one").glob("*.arrow")
    assert read_dialogues(arrow)[2].columns == {"level": 2}


@pytest.fixture
def subsets(datasets: Any, tmp_path: Path) -> Path:
    """A folder in the layout of a repository with two subsets, each with the splits train and test."""
    folder = tmp_path / "sums"
    lines = ["---", "configs:"]
    for subset in ("main", "socratic"):
        (folder / subset).mkdir(parents=True)
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split in ("train", "test"):
            row = {"prompt": f"{subset} {split}?"}
            (folder / subset / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
            lines += [f"  - split: {split}", f"    path: {subset}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def test_subsets(subsets: Path) -> None:
    assert read_dialogues(subsets, subset="main")[0].prompt == "main train?"
    assert read_dialogues(subsets, subset="socratic", split="test")[0].prompt == "socratic test?"
    with pytest.raises(UserError, match=r"sums has no subset nain; its subsets are main, socratic: task.subset=main$"):
        read_dialogues(subsets, subset="nain")
    with pytest.raises(UserError, match=r"sums has the subsets main, socratic: name one of them, task.subset=main$"):
        read_dialogues(subsets)
    with pytest.raises(UserError, match=r"sums has no split dev; its splits are train, test: task.split=train$"):
        read_dialogues(subsets, subset="main", split="dev")
    with pytest.raises(UserError, match=r"sums has no split dev; its splits are train, test: task.split=train$"):
        read_dialogues(subsets, subset="main", split="dev", streaming=True)


def test_streams(datasets: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "level": i} for i in range(2 * BUFFER)]
    path = write(tmp_path, *rows)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "p.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    streams = [read_dialogues(each, streaming=True) for each in (path, tmp_path / "p.parquet", tmp_path / "saved")]
    streams.append(dialogues_of(datasets.Dataset.from_list(rows).to_iterable_dataset()))
    orders = []
    for stream in streams:
        assert isinstance(stream, StreamedDialogues)
        assert stream.first(2) == [Dialogue("0", "0?", {"level": 0}), Dialogue("1", "1?", {"level": 1})]
        one_pass = list(stream.shuffled(seed=1, number=0))
        assert sorted(int(each.id) for each in one_pass) == list(range(2 * BUFFER))
        assert all(each.prompt == f"{each.id}?" for each in one_pass)
        orders.append([each.id for each in one_pass])
    assert orders[0] == orders[1] == orders[2] == orders[3]
    assert [each.id for each in islice(streams[0].shuffled(seed=1, number=1), 9)] != orders[0][:9]
    assert [each.id for each in islice(streams[0].shuffled(seed=2, number=0), 9)] != orders[0][:9]
    assert all(int(number) <= BUFFER + place for place, number in enumerate(orders[0]))


def test_streams_without_rows_or_columns(datasets: Any) -> None:
    empty = dialogues_of(datasets.IterableDataset.from_generator(lambda: iter(())))
    with pytest.raises(UserError, match="prompts is empty"):
        empty.first()
    other = dialogues_of(datasets.Dataset.from_list([{"text": "a"}]).to_iterable_dataset())
    with pytest.raises(UserError, match="prompts has no column prompt or context_messages or messages; it has text"):
        other.first()
    wrong = dialogues_of(datasets.Dataset.from_list([{"prompt": 3}]).to_iterable_dataset())
    with pytest.raises(UserError, match="prompts row 0: the field prompt must be a text or a list of messages"):
        list(wrong.shuffled(0, 0))


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
