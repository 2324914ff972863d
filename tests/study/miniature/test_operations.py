"""The operations: their idioms are Python, right ones agree, wrong ones differ."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

from refinerl.alignment import align
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.study.miniature.operations import DIFFICULTIES, OF_DIFFICULTY, OPERATIONS, SHAPED, SHAPES, fill
from refinerl.study.miniature.vocabulary import save_tokenizer

RNG = random.Random(0)
LISTS = [[RNG.randint(0, 6) for _ in range(length)] for length in (4, 5, 6, 7, 7)]


def results(idiom: str, number: int) -> list[object]:
    """The values of an idiom on all lists; None where it raises."""
    found: list[object] = []
    for values in LISTS:
        try:
            found.append(eval(fill(idiom, number, "x", "v"), {"x": list(values)}))
        except Exception:
            found.append(None)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_right_idioms_agree_and_each_error_differs(name: str, shape):
    operation = SHAPED[shape][name]
    for number in (2, 3, 4):
        expected = results(operation.right[0], number)
        assert all(isinstance(values, list) for values in expected)
        assert all(results(idiom, number) == expected for idiom in operation.right)
        assert all(results(idiom, number) != expected for idiom in operation.wrong)


def test_the_words_tell_operations_apart():
    questions = [operation.question(3) for operation in OPERATIONS.values()]
    assert len(set(questions)) == len(questions) == 44
    assert [len(OF_DIFFICULTY[difficulty]) for difficulty in DIFFICULTIES] == [10, 10, 24]


def test_far_errors_at_hard_operations_share_little_with_the_right_lines(tmp_path: Path):
    save_tokenizer(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)

    def distance(name: str, shape) -> int:
        """The fewest tokens by which an error differs from a right idiom."""
        operation = SHAPED[shape][name]
        tokens = {idiom: tokenizer.encode(fill(idiom, 3, "x", "v")) for idiom in (*operation.right, *operation.wrong)}
        pairs = [(tokens[right], tokens[wrong]) for right in operation.right for wrong in operation.wrong]
        return min(each.distance for each in align(*zip(*pairs, strict=True)))

    hard = OF_DIFFICULTY["hard"]
    assert min(distance(name, "far") for name in hard) >= 5
    assert statistics.median(distance(name, "near") for name in hard) <= 3
    for difficulty in ("easy", "medium"):
        assert all(SHAPED["far"][name] == OPERATIONS[name] for name in OF_DIFFICULTY[difficulty])
