import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from refinerl.contracts import Task
from refinerl.data.conversations import Dialogue, StreamedDialogues
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Reward, Rollout
from refinerl.tasks.asking import transcript
from refinerl.tasks.dialogue import DialogueTask
from refinerl.tasks.reward_sum import RewardSum
from refinerl.tasks.rules import load_rule
from refinerl.tasks.user_reward import UserReward

USER = {"role": "user", "content": "Hello?"}
TURNS = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Yes."}, USER]


def encode(messages: Sequence[Message]) -> list[int]:
    return [len(message["content"]) for message in messages]


def brevity(completions: Any, bonus: Any = None, **_: Any) -> list[float | None]:
    bonus = bonus or [0.0] * len(completions)
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [None if not text else extra - len(text) for text, extra in zip(texts, bonus, strict=True)]


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def completion(text: str) -> Completion:
    return Completion((1,), (), text, "stop")


def test_prompts_and_rewards() -> None:
    dialogues = [Dialogue("1", "Hi", {"bonus": 10}), Dialogue("2", tuple(TURNS), {"bonus": 0})]
    task: Task = DialogueTask(dialogues, encode, reward=UserReward(brevity), system="Be kind.")
    first, second = task.prompts()
    assert first.messages == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"})
    assert first.token_ids == (8, 2)
    assert second.messages == tuple(TURNS)
    assert task.max_reward is None
    assert task.extract("```\na\n```") == "```\na\n```"
    prompts = [first, second, second]
    rewards = task.score(prompts, [completion("abc"), completion("abcd"), completion("")])
    assert rewards == [Reward(7.0, "scored"), Reward(-4.0, "scored"), None]


def test_bare_text_prompts() -> None:
    task = DialogueTask(
        [Dialogue("1", "Once upon", {})], encode, reward=UserReward(brevity), encode_text=lambda text: [len(text)]
    )
    (prompt,) = task.prompts()
    assert (prompt.text, prompt.messages, prompt.token_ids) == ("Once upon", (), (9,))
    assert task.score([prompt], [completion(" a")]) == [Reward(-2.0, "scored")]


def bare(text: str) -> list[int]:
    return [len(text)]


def test_a_template_for_texts(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Use $numbers.\nQuestion: $question\nAnswer:\n")
    dialogues = [Dialogue("1", "24?", {"numbers": [4, 6]}), Dialogue("2", "8?", {"numbers": "2, 4"})]
    options = {"reward": UserReward(brevity), "template": str(path)}
    first, second = DialogueTask(dialogues, encode, encode_text=bare, **options).prompts()
    assert (first.text, first.messages) == ("Use [4, 6].\nQuestion: 24?\nAnswer:", ())
    assert second.text == "Use 2, 4.\nQuestion: 8?\nAnswer:"
    (asked, _) = DialogueTask(dialogues, encode, system="Be kind.", **options).prompts()
    assert asked.messages == (
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": first.text},
    )  # fmt: skip
    assert asked.text == "24?"  # what the refiner is told


@pytest.mark.parametrize(
    ("text", "dialogue", "message"),
    [
        ("$question $n", Dialogue("7", "Hi", {"n": None}), "prompt 7 has no value in the column n, which"),
        ("$question $m", Dialogue("7", "Hi", {"n": 1}), r"unknown variable \$m; it may use \$question, \$n"),
        ("$question", Dialogue("7", (USER,), {}), "is for prompts that are texts, and prompt 7 is a list of messages"),
        ("--- user\nHi\n--- assistant\nYes\n--- user\n$question\n", Dialogue("7", "Hi", {}),
         "has 3 turns, and task.prompt_format=text prompts with a single text: choose task.prompt_format=chat"),
    ],
)  # fmt: skip
def test_templates_that_do_not_fit(tmp_path: Path, text: str, dialogue: Dialogue, message: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        DialogueTask([dialogue], encode, reward=UserReward(brevity), template=str(path), encode_text=bare)


def test_examples_in_turns_precede_a_question(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("--- user\n1 + 1?\n--- assistant\n2\n--- user\n$question\n")
    task = DialogueTask([Dialogue("1", "2 + 2?", {})], encode, reward=UserReward(brevity), template=str(path))
    assert [turn["content"] for turn in task.prompts()[0].messages] == ["1 + 1?", "2", "2 + 2?"]


def options(**given: Any) -> DialogueTask.Options:
    return DialogueTask.Options(**{"name": "dialogue", "path": "x", "reward": "rule:answer", **given})


def test_an_answer_that_every_rule_accepts_has_the_highest_reward() -> None:
    """One after the other, 0.1 + 0.2 + 0.3 are more than 0.6, which no answer would reach."""
    weights = (0.1, 0.2, 0.3)
    most = options(reward=["rule:answer", "rule:matches", "rule:countdown"], reward_weights=weights).max_reward
    every = RewardSum([UserReward(lambda completions: [1.0] * len(completions)) for _ in weights], weights)
    task = DialogueTask([Dialogue("1", "Hi", {})], encode, reward=every, max_reward=most, encode_text=bare)
    (reward,) = task.score(task.prompts(), [completion("a")])
    assert reward is not None
    assert (reward.value, reward.feedback) == (most, "Verdict: right.")


def test_a_row_to_which_a_rule_does_not_apply_has_a_highest_reward_of_its_own() -> None:
    """Its right answers were `partly right, 1 of 3 points`, and were refined."""
    own = options(reward=["rule:answer", "rule:matches"], reward_weights=[1, 2])
    rules_of_run = RewardSum([load_rule("answer"), load_rule("matches")], own.reward_weights, highest=1.0)
    rows = [Dialogue("1", "2 + 2?", {"answer": "4"}), Dialogue("2", "3?", {"answer": "3", "pattern": "3"})]
    task = DialogueTask(rows, encode, reward=rules_of_run, max_reward=own.max_reward, encode_text=bare)
    prompts = [task.prompts()[i] for i in (0, 0, 1, 1)]
    answers = [completion(text) for text in ("4", "5", "3", "So 3")]
    rewards = task.score(prompts, answers)
    assert [reward and (reward.value, reward.feedback) for reward in rewards] == [
        (1, "Verdict: right."),
        (0, "Verdict: wrong."),
        (3, "Verdict: right."),
        (1, "Verdict: partly right, 1 of 3 points."),
    ]
    rollouts = [Rollout(*each, 0) for each in zip(prompts, answers, rewards, strict=True)]
    assert [rollout.improvable(task.max_reward) for rollout in rollouts] == [False, True, False, True]


def test_texts_stay_texts_unless_a_system_message_makes_a_conversation() -> None:
    assert options().prompt_format == "text"
    assert options(system="Be kind.").prompt_format == "chat"
    assert options(prompt_format="chat").prompt_format == "chat"
    mixed = [Dialogue("1", (USER,), {}), Dialogue("2", "Hi", {})]
    with pytest.raises(UserError, match=r"prompt 2 is a text, which goes to the model without task\.system: choose"):
        DialogueTask(mixed, encode, reward=UserReward(brevity), system="Be kind.", encode_text=bare)


def test_knobs_of_data_sets_are_refused_for_single_files(tmp_path: Path) -> None:
    for name in ("rows", "rows.txt"):  # read as JSON lines; the knobs had no effect
        (tmp_path / name).write_text('{"prompt": "Hi"}\n')
        for knob, value in (("split", "test"), ("subset", "main")):
            with pytest.raises(ValueError, match=rf"task.{knob} is for data sets: the file .*{name} has none"):
                options(path=str(tmp_path / name), **{knob: value})
    assert options(path="hub:openai/gsm8k", subset="main", split="test").subset == "main"
    for path in ("p.csv", "p.jsonl.gz", "hub:openai/gsm8k/main/train.parquet"):
        with pytest.raises(ValueError, match=rf"task.subset is for data sets: the file {path} has none"):
            options(path=path, subset="main")
    with pytest.raises(
        ValueError, match=r"task\.streaming must be false for shipped:countdown, which is made in memory"
    ):
        options(path="shipped:countdown", streaming=True)
    with pytest.raises(UserError, match=r"task\.streaming is for paths, and prompts is an object"):
        options(streaming=True).read([{"prompt": "Hi"}])


def test_a_stream_gives_its_prompts_pass_by_pass() -> None:
    rows = [{"prompt": "a" * n, "bonus": n} for n in (3, 9, 4, 10)]
    task = DialogueTask(
        StreamedDialogues("rows", rows), encode, reward=UserReward(brevity), encode_text=lambda t: [0] * len(t),
        max_prompt_tokens=8,
    )  # fmt: skip
    assert (task.too_long, [prompt.id for prompt in task.prompts()]) == (2, ["0", "2"])
    assert task.passes is not None
    assert sorted(prompt.id for prompt in task.passes(0, 0)) == ["0", "2"]
    assert task.over([Dialogue("1", "a", {"bonus": 1})]).passes is None
    with pytest.raises(UserError, match="needs 'answer'"):
        DialogueTask(StreamedDialogues("rows", rows), encode, reward=UserReward(lambda completions, answer: []))


def test_a_correction_keeps_the_white_space_before_a_text() -> None:
    task = DialogueTask([Dialogue("1", "2 + 2 =", {})], encode, reward=UserReward(brevity), encode_text=bare)
    rollout = Rollout(task.prompts()[0], completion("\n 5"), Reward(0.0, "scored"), 0)
    assert task.refined_response(rollout, "<response>\n4\n</response>") == "\n 4"
    assert task.refined_response(rollout, "<response>\n 4\n</response>") == " 4"
    assert task.refined_response(rollout, "<response>\n</response>") == ""


def test_refining() -> None:
    task = DialogueTask([Dialogue("1", tuple(TURNS), {})], encode, reward=UserReward(brevity))
    rollout = Rollout(task.prompts()[0], completion("The end of"), Reward(-10.0, "scored"), 0)
    system, asked = task.refine_prompt(rollout)
    assert system == {"role": "system", "content": "Be brief."}  # the conversation's own
    assert "User: Hello?\n\nAssistant: Yes.\n\nUser: Hello?" in asked["content"]
    assert "The end of" in asked["content"]
    assert "Be brief." not in asked["content"]
    assert task.refined_response(rollout, "Sure.\n<response>\nThe end.\n</response>") == "The end."
    assert task.refined_response(rollout, "The end.") == "The end."


def test_the_refiner_sees_the_conversations_system_message_else_the_tasks() -> None:
    dialogues = [Dialogue("1", tuple(TURNS), {}), Dialogue("2", "Hello?", {})]
    task = DialogueTask(dialogues, encode, reward=UserReward(brevity), system="Be kind.")
    for prompt, expected in zip(task.prompts(), ("Be brief.", "Be kind."), strict=True):
        system, _ = task.refine_prompt(Rollout(prompt, completion("Hi"), Reward(-10.0, "scored"), 0))
        assert system["content"] == prompt.messages[0]["content"] == expected


def test_another_template_for_the_refiner(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("$question|$response\n")
    task = DialogueTask([Dialogue("1", "Hi", {})], encode, reward=UserReward(brevity), system="Be kind.")
    rollout = Rollout(task.prompts()[0], completion("The end of"), Reward(-10.0, "scored"), 0)
    (system, asked) = task.refined_by(str(tmp_path / "mine.txt")).refine_prompt(rollout)
    assert (system["content"], asked["content"]) == ("Be kind.", "Hi|The end of")
    assert "The end of" in task.refine_prompt(rollout)[-1]["content"] != "Hi|The end of"


def test_prompts_that_are_too_long_are_left_out() -> None:
    dialogues = [Dialogue(str(n), "a" * n, {}) for n in (3, 9, 4, 10)]
    task = DialogueTask(dialogues, encode, reward=UserReward(brevity), max_prompt_tokens=1)
    assert task.too_long == 0  # `encode` gives one token for each message
    task = DialogueTask(
        dialogues, lambda m: [0] * len(m[-1]["content"]), reward=UserReward(brevity), max_prompt_tokens=8
    )
    assert (task.too_long, [p.id for p in task.prompts()], len(task.prompts()[1:])) == (2, ["3", "4"], 1)
    with pytest.raises(UserError, match="all 4 prompts are longer than 2 tokens"):
        DialogueTask(dialogues, lambda m: [0] * 3, reward=UserReward(brevity), max_prompt_tokens=2)


def test_a_reward_function_that_needs_a_missing_column() -> None:
    def reward(completions: Any, answer: Any) -> list[float]:
        return []

    with pytest.raises(UserError, match="needs 'answer'"):
        DialogueTask([Dialogue("1", "Hi", {"bonus": 1})], encode, reward=UserReward(reward))


def test_transcript_of_one_message_is_its_text() -> None:
    assert transcript((TURNS[0], USER)) == "Hello?"
