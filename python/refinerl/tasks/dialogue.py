"""The dialogue task: conversations, rewarded by a reward model, rules or functions of the user's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from refinerl.contracts.options import DataPath, Positive, Reads, Rewards, TaskOptions, TemplatePath, When, derived
from refinerl.data import countdown
from refinerl.data.conversations import Dialogues, StreamedDialogues, dialogues_of, read_dialogues
from refinerl.data.tables import has_splits
from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward, Rollout
from refinerl.tasks import rules
from refinerl.tasks.asking import Asker, Encode, Prompts, StreamedPrompts, load_question_template
from refinerl.tasks.refining import Refinable
from refinerl.tasks.reward_sum import RewardSum, highest_sum
from refinerl.tasks.user_reward import UserReward

if TYPE_CHECKING:  # the options are read without torch
    from refinerl.tasks.reward_model import RewardModel


class DialogueTask(Refinable):
    """Conversations, rewarded by a reward model, by rules or by functions.

    Args:
        dialogues: at least one. A prompt that is a text becomes a message of the user's.
        encode: the policy's chat template and tokenizer.
        reward: scores the answers.
        max_reward: the highest possible reward, if there is one; a response that has it is not refined.
        template: a template for prompts that are texts, as in `load_question_template`.
        system: a system message before each conversation that has none, and before the refiner's prompt.
        encode_text: if given, a prompt that is a text goes to the model bare, through this tokenizer, and reward
            functions get texts, as in TRL.
        max_prompt_tokens: longer prompts are left out and counted in `too_long`.

    Raises:
        UserError: the refiner's template cannot be used; a reward function asks for a column that does not exist; a
            prompt cannot be used, or all are too long.
    """

    class Options(TaskOptions):
        """The options of a recipe."""

        read_when = Reads(
            {
                "reward_seconds": When(
                    "a reward function of your own, or a rule other than rule:math",
                    lambda own, run: any(":" in name and name != "rule:math" for name in own.rewards),
                ),
                "math_seconds": When("task.reward=rule:math", lambda own, run: "rule:math" in own.rewards),
            }
        )
        path: DataPath | None = None
        """JSON lines, a JSON array, CSV, Parquet, a folder that `datasets` reads or has saved, `hub:OWNER/NAME`,
        `hub:OWNER/NAME/FILE` or `shipped:countdown`."""
        column: str | None = None
        """Column of the prompts; None: the first of prompt, context_messages and messages that exists."""
        split: str = "train"
        """Split of a data set that has several."""
        subset: str | None = None
        """Subset (configuration) of a data set that has several, such as `main` of `hub:openai/gsm8k`."""
        streaming: bool = False
        """Read the rows during the run, for data that are larger than the disk; they are shuffled among the next 1000.
        The first 1000 rows are checked before the run."""
        reward: Rewards = ()
        """`model` (reward_model.model), `rule:math`, `rule:answer`, `rule:matches`, `rule:countdown`, or
        `module:function` of your own, in TRL's signature; several, such as [a:b,c:d], are added up."""
        reward_weights: tuple[float, ...] = ()
        """Weights, one for each reward; empty: 1 each."""
        reward_seconds: Positive = 900.0
        """Seconds that one call of a reward function of your own, or of a rule, may take; a longer one ends the run."""
        math_seconds: Positive = 5.0
        """With rule:math: seconds of processor time to judge one response; one that takes longer counts as wrong."""
        prompt_format: Literal["chat", "text"] = derived("chat with task.system, else text")
        """Prompts that are texts: `text`, they go to the model as they are, and reward functions get texts, as in TRL;
        `chat`, they become messages of the user's. Prompts that are lists of messages always get the chat template."""
        template: TemplatePath | None = None
        """Template for prompts that are texts: a file, or a name from tasks/prompts; `$question` is the prompt, `$NAME`
        any other column. None: the prompt alone."""

        @model_validator(mode="after")
        def _settled(self) -> DialogueTask.Options:
            if "prompt_format" not in self.model_fields_set or self.prompt_format is None:
                self.prompt_format = "text" if self.system is None else "chat"
            if self.streaming and self.path in countdown.NAMES:
                raise ValueError(f"task.streaming must be false for {self.path}, which is made in memory")
            if self.path is not None and not has_splits(self.path):
                for knob, value, default in (("split", self.split, "train"), ("subset", self.subset, None)):
                    if value != default:
                        raise ValueError(
                            f"task.{knob} is for data sets: the file {self.path} has none; leave out task.{knob}"
                        )
            return self

        @field_validator("reward_weights", mode="before")
        @classmethod
        def _several(cls, given: Any) -> Any:
            if not isinstance(given, list | tuple):
                raise ValueError(
                    "task.reward_weights must be a list with one weight for each reward, such as [1,0.5], "
                    f"got {given!r}"
                )
            return given

        @model_validator(mode="after")
        def _named(self) -> DialogueTask.Options:
            if self.path is None:
                raise ValueError(
                    "task.path must be given for task.name=dialogue: JSON lines with a `prompt` column, or a data set"
                )
            wrong = [name for name in self.rewards if name != "model" and ":" not in name]
            if wrong or not self.rewards:
                raise ValueError(
                    "task.reward must be model, rule:NAME or module:function for task.name=dialogue, "
                    f"got {repr(wrong[0]) if wrong else 'none'}"
                )
            if twice := next((name for name in self.rewards if self.rewards.count(name) > 1), None):
                raise ValueError(
                    f"task.reward must name each reward once, got {twice} {self.rewards.count(twice)} times: "
                    "task.reward_weights gives one more weight"
                )
            if self.reward_weights and len(self.reward_weights) != len(self.rewards):
                raise ValueError(
                    f"task.reward_weights must have one weight for each reward: {len(self.rewards)}, "
                    f"got {len(self.reward_weights)}"
                )
            if self.reward_weights and not any(self.reward_weights):
                zeros = ",".join(f"{weight:g}" for weight in self.reward_weights)
                raise ValueError(
                    f"task.reward_weights must have a weight other than 0, such as 1, got [{zeros}]: every response "
                    "would have the reward 0"
                )
            return self

        @property
        def rewards(self) -> tuple[str, ...]:
            """The names of the rewards that are added up."""
            return (self.reward,) if isinstance(self.reward, str) else self.reward

        @property
        def bounded(self) -> bool:
            """True if all rewards are rules, whose highest value is known, and none counts against an answer."""
            return self.max_reward is not None and all(weight >= 0 for weight in self.reward_weights)

        @property
        def max_reward(self) -> float | None:
            """The highest possible reward if all rewards are rules, else None."""
            if not all(name.startswith("rule:") for name in self.rewards):
                return None
            weights = self.reward_weights or (1.0,) * len(self.rewards)
            return highest_sum(rules.MAX_REWARD, weights)

        def read(self, rows: Any = None) -> Dialogues:
            """Read the dialogues at `path`, or those of the object `rows`.

            Raises:
                UserError: they cannot be read, or a knob is set that only paths have.
            """
            if rows is not None:
                for knob, value, default in (
                    ("split", self.split, "train"),
                    ("subset", self.subset, None),
                    ("streaming", self.streaming, False),
                ):
                    if value != default:
                        raise UserError(
                            f"task.{knob} is for paths, and prompts is an object: leave out task.{knob}, and choose "
                            "with datasets.load_dataset"
                        )
                return dialogues_of(rows, column=self.column)
            return read_dialogues(
                self.path or "",
                column=self.column,
                split=self.split,
                subset=self.subset,
                streaming=self.streaming,
            )

    def __init__(
        self,
        dialogues: Dialogues,
        encode: Encode,
        *,
        reward: UserReward | RewardModel | RewardSum,
        max_reward: float | None = None,
        template: str | None = None,
        refine_template: str | None = None,
        system: str | None = None,
        encode_text: Callable[[str], Sequence[int]] | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        self.max_reward = max_reward
        self._reward = reward if isinstance(reward, RewardSum) else RewardSum([reward])
        self._no_feedback = (
            None if max_reward is not None else "only rules give a verdict, such as task.reward=rule:answer"
        )
        self._ask_with(refine_template or "refine_dialogue", system=system)
        first = dialogues.first(1)[0] if isinstance(dialogues, StreamedDialogues) else dialogues[0]
        loaded = (
            None if template is None else load_question_template(template, first.columns, text=encode_text is not None)
        )
        self._asker = Asker(encode, encode_text, self._system, loaded)
        self._take(dialogues, max_prompt_tokens)

    def over(self, dialogues: Dialogues, *, max_prompt_tokens: int | None = None) -> DialogueTask:
        """Return the same task, with the same reward, over other dialogues. Raises as the class."""
        twin = copy.copy(self)
        twin._take(dialogues, max_prompt_tokens)
        return twin

    def _take(self, dialogues: Dialogues, max_prompt_tokens: int | None) -> None:
        """Make the prompts of `dialogues`, or of a stream's first ones, and check that the reward can score them."""
        self.passes: StreamedPrompts | None = None
        """The prompts of a stream, pass by pass; None if the dialogues are no stream."""
        if isinstance(dialogues, StreamedDialogues):
            self.passes = StreamedPrompts(dialogues, self._asker, max_prompt_tokens)
            dialogues = dialogues.first()
        self._prompts = Prompts(dialogues, self._asker, max_prompt_tokens)
        self.too_long = self._prompts.too_long
        if not self._prompts:
            raise UserError(f"all {len(dialogues)} prompts are longer than {max_prompt_tokens} tokens")
        self._reward.check(self._prompts.columns, ((dialogue.id, dialogue.columns) for dialogue in dialogues))

    def prompts(self) -> Sequence[Prompt]:
        """Return one prompt per dialogue that is short enough, made on access; `payload` is the Dialogue.

        Of a stream, these are the prompts of its first rows; `passes` reads all.
        """
        return self._prompts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Score a batch with the rewards; None where none of them applies."""
        rewards = self._reward(prompts, completions, [prompt.payload.columns for prompt in prompts])
        most = self.max_reward
        if most is None:
            return rewards
        return [
            None if r is None else replace(r, feedback=verdict(r.value, most if r.most is None else r.most))
            for r in rewards
        ]

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """Return ỹ; where y continues a text, with y's leading white space if the reply has lost it."""
        text = super().refined_response(rollout, reply)
        if rollout.prompt.messages or not text or text[0].isspace():
            return text
        y = rollout.completion.text
        return y[: len(y) - len(y.lstrip())] + text

    def telemetry(self) -> Mapping[str, float]:
        """Return the metrics of the rewards since the last call."""
        return self._reward.telemetry()

    def close(self) -> None:
        """End the processes of the rewards."""
        self._reward.close()


def verdict(value: float, most: float) -> str:
    """Return the feedback on a reward by rules; it never contains the answer with which the rules compare."""
    if value >= most:
        return "Verdict: right."
    return "Verdict: wrong." if value <= 0 else f"Verdict: partly right, {value:g} of {most:g} points."
