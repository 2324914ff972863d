import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from refinerl.contracts import Task
from refinerl.data.conversations import Dialogue
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Reward, Rollout
from refinerl.tasks.dialogue import DialogueTask, transcript
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
