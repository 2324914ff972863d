import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outside import DATA, needs_data
from refinerl.data.apps import Case, Problem, chat_question, load_problems, official_prompt, read_problems
from refinerl.data.jsonlines import parse_int
from refinerl.errors import UserError


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    fields = {
        "problem_id": number,
        "question": "Print the input.",
        "solutions": json.dumps(["print(input())\n"]),
        "input_output": json.dumps({"inputs": ["1\n", "2\n"], "outputs": ["1\n", "2\n"]}),
        "difficulty": "introductory",
        "url": "",
        "starter_code": "",
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not ...}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "problems.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in rows))
    return path


def test_a_line_becomes_a_problem(tmp_path: Path) -> None:
    (problem,) = read_problems(write(tmp_path, row(7)))
    assert problem == Problem(
        id="7",
        question="Print the input.",
        starter_code="",
        fn_name=None,
        tests=(Case("1\n", "1\n"), Case("2\n", "2\n")),
        difficulty="introductory",
        solutions=("print(input())\n",),
    )


def test_calls_keep_arguments_and_values(tmp_path: Path) -> None:
    calls = {"fn_name": "f", "inputs": [[1, [2]], [3, []]], "outputs": [[3], 3.5]}
    (problem,) = read_problems(write(tmp_path, row(input_output=json.dumps(calls))))
    assert problem.fn_name == "f"
    assert problem.tests == (Case([1, [2]], [3]), Case([3, []], 3.5))


def test_plain_json_instead_of_json_in_a_string(tmp_path: Path) -> None:
    plain = row(input_output={"inputs": ["a"], "outputs": ["b"]}, solutions=["pass"], problem_id=..., id="x-1")
    (problem,) = read_problems(write(tmp_path, plain))
    assert (problem.id, problem.tests, problem.solutions) == ("x-1", (Case("a", "b"),), ("pass",))


def test_arrays_and_tables_hold_problems_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    rows = [row(1), row(2, input_output=json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [2]}))]
    expected = list(read_problems(write(tmp_path, *rows)))
    (tmp_path / "problems.json").write_text(json.dumps(rows))
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "problems.parquet")
    table.to_csv(tmp_path / "problems.csv")
    table.save_to_disk(tmp_path / "saved")
    for name in ("problems.json", "problems.parquet", "problems.csv", "saved"):
        assert list(read_problems(tmp_path / name)) == expected, name
    datasets.Dataset.from_list([row(1, question=None)]).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"none.parquet row 0: the field question is missing"):
        list(read_problems(tmp_path / "none.parquet"))


def test_lists_of_lines_are_joined(tmp_path: Path) -> None:
    tests = {"inputs": [["2", "3 4"]], "outputs": [["7", "8"]]}
    (problem,) = read_problems(write(tmp_path, row(input_output=json.dumps(tests))))
    assert problem.tests == (Case("2\n3 4", "7\n8"),)


def test_optional_fields_and_blank_lines(tmp_path: Path) -> None:
    bare = row(solutions=..., difficulty=..., url=..., starter_code=None)
    (problem,) = read_problems(write(tmp_path, "\n", bare, "  \n"))
    assert (problem.solutions, problem.difficulty, problem.starter_code) == ((), "", "")


@pytest.mark.parametrize("empty", ["", None, "{}", '{"inputs": [], "outputs": []}'])
def test_problems_without_tests_are_counted_and_left_out(tmp_path: Path, empty: str | None) -> None:
    path = write(tmp_path, row(1, input_output=empty), row(2), row(3, difficulty="interview"))
    kept = load_problems(path, difficulties=["introductory"])
    assert [problem.id for problem in kept.problems] == ["2"]
    assert kept.without_tests == 1


def test_nothing_left_names_the_difficulties(tmp_path: Path) -> None:
    path = write(tmp_path, row(1), row(2, difficulty="interview"))
    with pytest.raises(UserError, match=r"no problem left .*2 of another.*interview, introductory"):
        load_problems(path, difficulties=["competition"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops\n", r"jsonl:2: not JSON \(Expecting property name .* at column 2\)"),
        ("[1]\n", r"jsonl:2: a line must be a JSON object, got a list"),
        ("[" * 200_000 + "\n", r"jsonl:2: (JSON nested too deeply|not JSON)"),
        (row(2, problem_id=...), r"jsonl:2: the field problem_id is missing"),
        (row(2, problem_id=2.5), r"jsonl:2: the field problem_id must be a number or a text, got a number"),
        (row(2, question=...), r"jsonl:2: the field question is missing"),
        (row(2, question=["a"]), r"jsonl:2: the field question must be a text, got a list"),
        (row(2, input_output=...), r"jsonl:2: the field input_output is missing"),
        (row(2, input_output="{"), r"jsonl:2: the field input_output: not JSON"),
        (row(2, input_output=[1]), r"jsonl:2: the field input_output must be an object, got a list"),
        (row(2, input_output={"inputs": ["a"]}), r"jsonl:2: the field input_output.outputs is missing"),
        (row(2, input_output={"inputs": "a", "outputs": []}), r"input_output.inputs must be a list, got a text"),
        (row(2, input_output={"inputs": ["a", "b"], "outputs": ["a"]}), r"has 2 inputs and 1 outputs"),
        (row(2, input_output={"inputs": [5], "outputs": ["a"]}), r"inputs\[0\] must be a text or a list of lines"),
        (row(2, input_output={"fn_name": "f", "inputs": [5], "outputs": [1]}), r"inputs\[0\] must be a list of arg"),
        (row(2, input_output={"fn_name": 3, "inputs": [[5]], "outputs": [1]}), r"fn_name must be a text"),
        (row(2, solutions={"a": 1}), r"jsonl:2: the field solutions must be a list of texts, got an object"),
        (row(2, starter_code=4), r"jsonl:2: the field starter_code must be a text, got a number"),
        (row(1), r"jsonl:2: the problem_id 1 was used before, at .*jsonl:1"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path, row(1), line)
    with pytest.raises(UserError, match=message):
        list(read_problems(path))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b'{"problem_id": "\xff"}\n')
    with pytest.raises(UserError, match=r"jsonl:1: not UTF-8"):
        list(read_problems(path))


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file or folder"):
        list(read_problems(tmp_path / "nowhere"))


def test_integers_of_any_length_and_the_processs_limit_untouched(tmp_path: Path) -> None:
    digits = "9" * 20_000
    text = json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [0]}).replace("0", f"-{digits}")
    limit = sys.get_int_max_str_digits()
    (problem,) = read_problems(write(tmp_path, row(input_output=text)))
    assert problem.tests[0].expected == -(10**20_000) + 1
    assert sys.get_int_max_str_digits() == limit


@given(st.integers(min_value=-(10**4000), max_value=10**4000))
def test_parse_int_is_int(number: int) -> None:
    assert parse_int(str(number)) == number


def test_parse_int_keeps_leading_zeros_of_its_halves() -> None:
    assert parse_int("1" + "0" * 3000 + "1") == 10**3001 + 1


def test_capped_tests_are_the_same_each_time_in_order_and_nested(tmp_path: Path) -> None:
    texts = [f"{i}\n" for i in range(40)]
    path = write(tmp_path, *(row(n, input_output={"inputs": texts, "outputs": texts}) for n in (1, 2)))
    chosen = {k: [p.tests for p in read_problems(path, max_tests=k)] for k in (5, 12, 40, 99)}
    again = [p.tests for p in read_problems(path, max_tests=5)]
    assert chosen[5] == again
    assert [len(t) for t in chosen[5]] == [5, 5]
    assert chosen[5][0] != chosen[5][1]
    for tests in chosen[12]:
        numbers = [int(case.input) for case in tests]
        assert numbers == sorted(numbers)
    assert set(chosen[5][0]) < set(chosen[12][0])
    assert chosen[40] == chosen[99]


def test_max_tests_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_tests must be at least 1, got 0"):
        list(read_problems(write(tmp_path, row()), max_tests=0))


def folder(root: Path, name: str, **files: str) -> Path:
    home = root / name
    home.mkdir(parents=True)
    for file, text in files.items():
        (home / file.replace("_dot_", ".")).write_text(text)
    return home


def test_folder_per_problem(tmp_path: Path) -> None:
    tests = json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [2]})
    folder(
        tmp_path,
        "train/0001",
        question_dot_txt="Add one.",
        input_output_dot_json=tests,
        solutions_dot_json='["def f(x): return x + 1"]',
        starter_code_dot_py="def f(x):",
        metadata_dot_json='{"difficulty": "interview", "url": "u"}',
    )
    folder(tmp_path, "train/0000", question_dot_txt="Nothing to test.")
    first, second = read_problems(tmp_path)
    assert (first.id, first.tests) == ("train/0000", ())
    assert second == Problem(
        "train/0001",
        "Add one.",
        "def f(x):",
        "f",
        (Case([1], 2),),
        "interview",
        ("def f(x): return x + 1",),
    )


def test_folder_errors_name_the_file(tmp_path: Path) -> None:
    folder(tmp_path, "0000", question_dot_txt="q", input_output_dot_json='{"inputs": [}')
    with pytest.raises(UserError, match=r"0000/input_output.json: not JSON"):
        list(read_problems(tmp_path))


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder in it holds a question.txt"):
        list(read_problems(tmp_path))


def test_reading_keeps_one_problem_in_memory(tmp_path: Path) -> None:
    """Read 40 problems of 0.5 MB each: the peak is that of a few, not of all."""
    big = "x" * 500_000
    path = tmp_path / "big.jsonl"
    with path.open("w") as file:
        for n in range(40):
            file.write(json.dumps(row(n, input_output={"inputs": [big], "outputs": ["y"]})) + "\n")
    tracemalloc.start()
    assert sum(len(problem.tests) for problem in read_problems(path)) == 40
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


MEASURE = """
import sys
from refinerl.data.apps import load_problems
from refinerl.tasks.code import sandbox_tests
problems = load_problems(sys.argv[1]).problems
tests = [sandbox_tests(problem) for problem in problems]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(len(problems), sum(map(len, tests)), int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_a_file_of_the_size_of_apps_training_split_fits_in_a_gigabyte(tmp_path: Path) -> None:
    """Write 5,000 problems of over 107 MB (like `train.jsonl` on the hub), 550 without tests, a third call-based.

    Their tests are made ready for the sandbox as well.
    The peak counts the interpreter and PyTorch, which the task imports.
    """
    dice = random.Random(0)
    path = tmp_path / "train.jsonl"
    with path.open("w") as file:
        for n in range(5000):
            numbers = [[dice.randint(-(10**6), 10**6) for _ in range(30)] for _ in range(8 if n >= 550 else 0)]
            if n % 3 == 0:
                tests: dict[str, Any] = {"fn_name": "f", "inputs": [[row] for row in numbers], "outputs": numbers}
            else:
                texts = [" ".join(map(str, row)) + "\n" for row in numbers]
                tests = {"inputs": texts, "outputs": texts}
            solutions = [f"# {dice.random()}\n" + "print(sum(map(int, input().split())))\n" * 30 for _ in range(14)]
            fields = row(n, question="What is it? " * 120, solutions=json.dumps(solutions))
            fields["input_output"] = json.dumps(tests) if numbers else ""
            file.write(json.dumps(fields) + "\n")
    assert path.stat().st_size > 107e6
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    problems, cases, peak_mb = map(int, done.stdout.split())
    assert (problems, cases) == (4450, 4450 * 8)
    print(f"{path.stat().st_size / 1e6:.0f} MB of problems: peak {peak_mb} MB")
    assert peak_mb < 1000


def problem(**changes: Any) -> Problem:
    fields: dict[str, Any] = {
        "id": "1",
        "question": "Add a and b.",
        "starter_code": "",
        "fn_name": None,
        "tests": (),
        "difficulty": "",
        "solutions": (),
    }
    return Problem(**{**fields, **changes})


def test_official_prompt() -> None:
    assert official_prompt(problem()) == "\nQUESTION:\nAdd a and b.\nUse Standard Input format\nANSWER:\n"
    starter = problem(starter_code="def add(a, b):\n\t", fn_name="add")
    assert official_prompt(starter) == "\nQUESTION:\nAdd a and b.\ndef add(a, b):\n\t\nUse Call-Based format\nANSWER:\n"


def test_chat_question_says_what_to_write() -> None:
    assert "standard input" in chat_question(problem())
    assert "function named add" in chat_question(problem(fn_name="add"))
    with_starter = chat_question(problem(fn_name="add", starter_code="\ndef add(a, b):\n\t"))
    assert with_starter == "Add a and b.\n\nStart with:\n```python\ndef add(a, b):\n```"


@needs_data
@pytest.mark.parametrize(
    ("name", "count"),
    [("apps_original", 5), ("apps_stdin", 24), ("apps_call_a", 4), ("apps_call_b", 20), ("leetcode_call", 150)],
)
def test_real_problems(name: str, count: int) -> None:
    kept = load_problems(DATA / "apps" / f"{name}.jsonl")
    assert len(kept.problems) == count
    assert kept.without_tests == 0
    assert (
        all((problem.fn_name is not None) == ("call" in name) for problem in kept.problems) or name == "apps_original"
    )
