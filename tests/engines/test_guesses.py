"""Guesses from a draft: where they continue after a departure, how long they are, and how few passes they leave."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from refinerl.engines.guesses import Confidence, Draft, Guess, Reader, best_length

TEXT = tuple(range(100, 140))


def after(draft: Sequence[int], *written: Sequence[int], most: int = 4) -> Guess:
    """Return the guess after the last of these growing completions."""
    reader = Reader(Draft(draft, 1000))
    return [reader.guess(tokens, most) for tokens in written][-1]


def test_a_completion_begins_as_its_draft_does():
    assert after(TEXT, ()) == Guess((100, 101, 102, 103), "start", 0)


@pytest.mark.parametrize(
    ("written", "next_token"),
    [
        ([(), TEXT[:5]], 105),  # a copy
        ([TEXT[:5], (*TEXT[:5], 7)], 106),  # another token in the place of 105
        ([TEXT[:5], (*TEXT[:5], 7), (*TEXT[:5], 7, 8, 9, *TEXT[5:7])], 107),  # insertion of three tokens
        ([TEXT[:5], (*TEXT[:5], *TEXT[9:11])], 111),  # deletion of four tokens
        ([TEXT[:5], (*TEXT[:5], TEXT[6])], 107),  # deletion of one, known by a single token because it is near
        ([TEXT[:5], (*TEXT[:5], TEXT[30])], 106),  # a single token from far away is no place
    ],
)
def test_the_guess_continues_where_the_completion_is_in_the_draft(written, next_token):
    assert after(TEXT, *written).tokens[0] == next_token


def test_of_several_places_the_nearest_to_the_aligned_one_counts():
    block = (1, 2, 3)
    draft = (*block, 50, *TEXT[:10], *block, 51, *TEXT[10:20], *block, 52)
    head = draft[:14]
    assert after(draft, head, (*head, 9, *block)).tokens[0] == 51
    head = draft[:25]
    assert after(draft, head, (*head, 9, 9, *block)).tokens[0] == 52


def test_a_completion_that_repeats_itself_is_its_own_draft():
    loop = (5, 6, 7)
    guess = after((), loop * 4, most=8)
    assert (guess.tokens, guess.source) == ((5, 6, 7, 5, 6, 7, 5, 6), "repeat")
    assert after((), loop * 2, loop * 3, (*loop * 3, 5)).tokens == (6, 7, 5, 6)


def test_nothing_is_guessed_without_a_draft_or_room():
    assert after((), (), (1,), (1, 2, 3, 4, 5)).tokens == ()
    assert after(TEXT, TEXT[:3], most=0).tokens == ()
    assert after(TEXT, TEXT[:3], most=-1).tokens == ()
    assert after(TEXT, TEXT, most=4).tokens == ()  # the draft's end


def test_tokens_outside_the_vocabulary_are_never_guessed():
    reader = Reader(Draft((1, 2, 99, 3, 4, -5, 6), vocabulary=10))
    assert reader.guess((), 8).tokens == (1, 2)
    assert reader.guess((1, 2), 8).tokens == ()
    assert reader.guess((1, 2, 5), 8).tokens == (3, 4)
    assert reader.guess((1, 2, 5, 3, 4, 7), 8).tokens == (6,)


def test_confidence_follows_what_was_verified():
    good, bad = Confidence(), Confidence()
    guess = Guess(TEXT[:6], "draft", 8)
    for _ in range(100):
        good.learn(guess, 6, 6)
        bad.learn(guess, 1, 0)
    assert min(good.chances(guess)) > 0.97
    assert max(bad.chances(guess)) < 0.1
    other = Guess(TEXT[:6], "repeat", 8)
    assert good.chances(other) == Confidence().chances(other)  # each source has chances of its own


def test_the_length_weighs_chances_against_costs():
    surely, hardly = [0.99] * 32, [0.1] * 32
    assert best_length([surely], 1000.0) == 32
    assert best_length([surely] * 64, 0.0) == 0  # each token costs the same, guessed or not
    assert best_length([hardly], 1.0) == 0
    lengths = [best_length([[0.9] * 32], fixed) for fixed in (0.0, 4.0, 64.0, 1000.0)]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 4
    assert best_length([[0.9] * 32] * 32, 64.0) < best_length([[0.9] * 32], 64.0)  # more rows, fewer free tokens
    assert best_length([[], []], 64.0) == best_length([], 64.0) == 0


def edited(rng: random.Random, text: Sequence[int], share: float) -> list[int]:
    """Copy a text, except for about this share of its tokens, in edits of one to four tokens."""
    out: list[int] = []
    place = 0
    while place < len(text):
        size = rng.randint(1, 4)
        if rng.random() < share / size:
            kind = rng.choice(("replace", "insert", "delete"))
            out += [rng.randrange(20, 400) for _ in range(size if kind != "delete" else 0)]
            place += size if kind != "insert" else 0
        else:
            out.append(text[place])
            place += 1
    return out


def passes(draft: Sequence[int], text: Sequence[int], length: Callable[[Guess], int]) -> int:
    """Count the passes in which a model writes a text with guesses of these lengths."""
    reader, confidence, written, count = Reader(Draft(draft, 1000)), Confidence(), [], 0
    while len(written) < len(text):
        guess = reader.guess(written, 32)
        tokens = guess.tokens[: length(guess)]
        rest = text[len(written) :]
        right = next((i for i, token in enumerate(tokens) if i >= len(rest) or rest[i] != token), len(tokens))
        written += rest[: right + 1]
        confidence.learn(guess, min(len(tokens), right + 1), right)
        count += 1
    return count


def test_a_copy_of_nine_tokens_in_ten_takes_five_times_fewer_passes():
    rng = random.Random(0)
    zipf = [int(rng.paretovariate(1.1)) % 400 for _ in range(20_000)]  # frequent tokens are frequent, as in texts
    plain = guessed = 0
    for start in range(0, len(zipf), 200):
        draft = zipf[start : start + 200]
        text = edited(rng, draft, 0.1)
        plain += len(text)
        guessed += passes(draft, text, lambda guess: len(guess.tokens))
    assert plain > 5 * guessed


def test_a_draft_of_another_text_costs_no_pass_more_than_none():
    rng = random.Random(0)
    draft, text = ([rng.randrange(400) for _ in range(200)] for _ in range(2))
    assert passes(draft, text, lambda guess: len(guess.tokens)) <= len(text)
