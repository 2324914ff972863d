"""The code task: programs that the sandbox judges by tests, with the rewards of Eqs. 7 and 8."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import field_validator, model_validator

from refinerl.contracts.options import Count, DataPath, Positive, Reads, Rewards, TaskOptions, TemplatePath, When
from refinerl.data import PROBLEMS as EMBEDDED
from refinerl.data import SHIPPED
from refinerl.data.apps import Problem, ProblemSet, chat_question, load_problems, official_prompt, problems_of
from refinerl.data.hub import local
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward, Rollout
from refinerl.sandbox import Outcome, Program, Sandbox, SandboxError, Test, Verdict
from refinerl.tasks import templates
from refinerl.tasks.feedback import count_visible, failure, feedback
from refinerl.tasks.fences import Which, extract, find_block, find_blocks, is_python
from refinerl.tasks.hard_coding import gains_only_shown, names_the_answer
from refinerl.tasks.judging import Judging, Key
from refinerl.tasks.refining import Refinable
from refinerl.tasks.user_reward import UserReward, user_rewards

Encode = Callable[[Sequence[Message]], Sequence[int]]
"""A function that applies the policy's chat template, with the generation prompt, and tokenizes."""


def coarse_reward(outcome: str) -> float:
    """Return the reward of Eq. 7.

    It is −1 if a program does not compile, −0.6 if a test ends in an error or exceeds a limit, −0.3 if a test fails,
    and +1 if all pass.

    >>> coarse_reward("timeout")
    -0.6

    Raises:
        ValueError: the outcome is not one of the sandbox's for a program.
    """
    if outcome not in _COARSE:
        raise ValueError(f"outcome must be one of {', '.join(_COARSE)}, got {outcome!r}")
    return _COARSE[outcome]


def adaptive_reward(outcome: str, pass_rate: float) -> float:
    """Return the reward of Eq. 8: as Eq. 7, but −0.3 + 1.3·passed/(passed + failed) where tests fail.
    >>> round(adaptive_reward("wrong_answer", pass_rate=0.5), 2)
    0.35
    """
    if outcome == "wrong_answer":
        return -0.3 + 1.3 * pass_rate
    return coarse_reward(outcome)


_COARSE = {
    "compile_error": -1.0,
    "runtime_error": -0.6,
    "timeout": -0.6,
    "memory_limit": -0.6,
    "output_limit": -0.6,
    "wrong_answer": -0.3,
    "passed": 1.0,
}


class CodeTask(Refinable):
    """Programming problems with tests.

    Args:
        problems: at least one.
        box: judges the programs; closed with the task. None is allowed if `reward` is a function.
        encode: the policy's chat template and tokenizer.
        reward: Eq. 8, Eq. 7, or a function of the user's, which gets the problem's fields as columns.
        prompt_format: the question in `question_template`, or APPS's own text.
        max_prompt_tokens: problems with a longer prompt are left out and counted in `too_long`.
        system: a system message before the question and before the refiner's prompt.
        max_sandbox_errors: share of a batch that may be lost to faults of the sandbox, as in `rewards_of`.
        visible_tests: how many of a problem's tests the refiner may be shown; a float is a share.
        block: which of an answer's closed code blocks is its program.
        isolate: `program` judges all tests of a program whose function is called in one child (`sandbox.box.Program`),
            unless the refiner's template shows feedback, into which the program could copy inputs of hidden tests.

    Raises:
        UserError: a template or a test cannot be used; no problem is left; the reward function asks for a column that
            does not exist.
    """

    class Options(TaskOptions):
        """The options of a recipe."""

        read_when = Reads(
            {
                "embedded": When("task.path=null", lambda own, run: own.path is None),
                "difficulty": When(
                    "task.path or task.embedded=all",
                    lambda own, run: own.path is not None or own.embedded in ("all", "miniature"),
                ),
                "template": When("task.prompt_format=chat", lambda own, run: own.prompt_format == "chat"),
                "reward_seconds": When("a reward function of your own", lambda own, run: not own.bounded),
                "visible_tests": When(
                    "a refiner.template that shows $feedback, such as refine_code_feedback",
                    lambda own, run: run.rewrites and templates.shows_feedback(run.refiner.template or "refine_code"),
                ),
            }
        )
        path: DataPath | None = None
        """JSON lines or an array, Parquet, APPS's folder per problem, `hub:OWNER/NAME/FILE` or `shipped:NAME`; None:
        the embedded problem set."""
        embedded: Literal["all", "trivial", "easy", "miniature"] = "all"
        """Difficulty of the embedded problems, or the miniature's training problems, if no path is given."""
        difficulty: str | None = None
        """Difficulty of the problems to keep; None: all."""
        max_tests: Count | None = None
        """Most tests per problem, chosen by the problem's id; None: all."""
        visible_tests: int | float = 1
        """Number of a problem's tests, from the first, that the refiner may be shown in `$feedback`; a float such as
        0.5 is a share. The others stay hidden."""
        reward: Rewards = "adaptive"
        """`adaptive` (Eq. 8), `coarse` (Eq. 7), or `module:function` of your own, in TRL's signature."""
        extract: Literal["last", "first", "longest"] = "last"
        """The code block of an answer that is scored, in y and ỹ alike; LiveCodeBench takes the last."""
        reward_seconds: Positive = 900.0
        """Seconds that one call of a reward function of your own may take; a longer one ends the run."""
        prompt_format: Literal["chat", "apps"] = "chat"
        """`chat`: the question in the template; `apps`: APPS's own text (`QUESTION: … ANSWER:`)."""
        template: TemplatePath | None = None
        """Question template: a file, or a name from tasks/prompts; None: `code`."""

        @field_validator("visible_tests", mode="before")
        @classmethod
        def _visible(cls, given: Any) -> Any:
            number = isinstance(given, int | float) and not isinstance(given, bool) and given >= 0
            if not number or (isinstance(given, float) and given > 1):
                raise ValueError(
                    f"task.visible_tests must be a number of tests, such as 2, or a share, such as 0.5, got {given!r}"
                )
            return given

        @model_validator(mode="after")
        def _one_reward(self) -> CodeTask.Options:
            if self.rewards and self.rewards[0].startswith("rule:"):
                raise ValueError(
                    f"task.reward={self.rewards[0]} is for task.name=dialogue; task.name=code judges programs"
                )
            if len(self.rewards) != 1 or (self.rewards[0] not in ("adaptive", "coarse") and ":" not in self.rewards[0]):
                raise ValueError(f"task.reward must be adaptive, coarse or module:function, got {self.reward!r}")
            return self

        @property
        def rewards(self) -> tuple[str, ...]:
            """The name of the reward."""
            return (self.reward,) if isinstance(self.reward, str) else self.reward

        @property
        def bounded(self) -> bool:
            """True for Eqs. 7 and 8, whose highest value is 1."""
            return ":" not in self.rewards[0]

        def read(self, rows: Any = None) -> ProblemSet:
            """Read the problems at `path`, or those of `rows` in memory.

            Raises:
                UserError: they cannot be read.
            """
            difficulties = None if self.difficulty is None else [self.difficulty]
            if rows is not None:
                return problems_of(rows, max_tests=self.max_tests, difficulties=difficulties)
            if self.path is not None:
                return load_problems(local(self.path), max_tests=self.max_tests, difficulties=difficulties)
            if self.embedded == "miniature":
                return load_problems(SHIPPED["miniature"], max_tests=self.max_tests, difficulties=difficulties)
            if self.embedded != "all":
                difficulties = [self.embedded]
            return load_problems(EMBEDDED, max_tests=self.max_tests, difficulties=difficulties)

    max_reward: float | None = 1.0

    def __init__(
        self,
        problems: Sequence[Problem],
        box: Sandbox | None,
        encode: Encode,
        *,
        reward: Literal["adaptive", "coarse"] | UserReward = "adaptive",
        prompt_format: Literal["chat", "apps"] = "chat",
        question_template: str | None = None,
        refine_template: str | None = None,
        max_prompt_tokens: int | None = None,
        system: str | None = None,
        max_sandbox_errors: float = 0.01,
        visible_tests: int | float = 1,
        block: Which = "last",
        isolate: Literal["test", "program"] = "test",
    ) -> None:
        if box is None and not isinstance(reward, UserReward):
            raise ValueError(f"box must be a Sandbox for reward {reward!r}, got None")
        self._box = box
        self._judging = None if box is None else Judging(box)
        self._block: Which = block
        self._isolate: Literal["test", "program"] = isolate
        self._reward = reward
        self._max_sandbox_errors = max_sandbox_errors
        self._no_feedback = (
            "a reward function of your own does not report tests; task.reward=adaptive or coarse does"
            if isinstance(reward, UserReward)
            else None
        )
        self._ask_with(refine_template or "refine_code", system=system)
        if isinstance(reward, UserReward):
            self.max_reward = None
            reward.check(COLUMNS)
        self._encode, self._prompt_format, self._visible_tests = encode, prompt_format, visible_tests
        self._question = templates.load_template(question_template or "code", templates.TASK_VARIABLES)
        self._take(problems, max_prompt_tokens)

    def over(self, problems: Sequence[Problem], *, max_prompt_tokens: int | None = None) -> CodeTask:
        """Return the same task, with the same reward and sandbox, over other problems. Raises as the class."""
        twin = copy.copy(self)
        twin._judging = None if self._box is None else Judging(self._box)
        twin._take(problems, max_prompt_tokens)
        return twin

    def _take(self, problems: Sequence[Problem], max_prompt_tokens: int | None) -> None:
        """Make the prompts and tests of `problems`; those that are too long are left out and counted."""
        self._tests: dict[str, list[Test]] = {}
        self._visible: dict[str, int] = {}
        self.too_long = 0
        self._prompts: list[Prompt] = []
        for problem in problems:
            chat = chat_question(problem)
            if self._prompt_format == "apps":
                asked: tuple[Message, ...] = ({"role": "user", "content": official_prompt(problem)},)
            else:
                asked = self._question.messages(question=chat)
            messages = (*self._system, *asked)
            tokens = tuple(self._encode(messages))
            if max_prompt_tokens is not None and len(tokens) > max_prompt_tokens:
                self.too_long += 1
                continue
            self._prompts.append(Prompt(problem.id, chat, messages, tokens, payload=problem))
            self._tests[problem.id] = sandbox_tests(problem)
            self._visible[problem.id] = count_visible(problem, self._visible_tests)
        if not self._prompts:
            raise UserError(f"no problem is left: all prompts have more than {max_prompt_tokens} tokens")
        self._several = self._masked = 0

    def prompts(self) -> Sequence[Prompt]:
        """Return one prompt per problem; `text` is the question without the template, `payload` the Problem."""
        return self._prompts

    def extract(self, text: str) -> str:
        """Return the program in an answer: the closed block that counts, else an open block, else the whole text."""
        return extract(text, self._block)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Run each program on all tests of its prompt, in one batch; None where the sandbox was at fault.

        Raises:
            SandboxError: the sandbox failed on too many programs.
        """
        if isinstance(self._reward, UserReward):
            return user_rewards(self._reward, prompts, completions, [_columns(p.payload) for p in prompts])
        assert self._judging is not None
        programs = [self._program(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        self._several += sum(len(find_blocks(completion.text)) > 1 for completion in completions)
        keys = [_key(prompt, program) for prompt, program in zip(prompts, programs, strict=True)]
        verdicts = self._judging.judge(keys, programs)
        rewards = rewards_of(verdicts, self._reward, self._max_sandbox_errors)
        self._masked += rewards.count(None)
        return [
            None if reward is None else self._detailed(reward, prompt, program.source, verdict)
            for reward, prompt, program, verdict in zip(rewards, prompts, programs, verdicts, strict=True)
        ]

    def expect(self, prompt: Prompt, completion: Completion) -> None:
        """Begin to judge a program in the background; `score` then has its verdict sooner.

        A reward function of the user's gets all completions of a step in one call, and nothing before.
        """
        if self._judging is not None and not isinstance(self._reward, UserReward):
            program = self._program(prompt, completion)
            self._judging.expect(_key(prompt, program), program)

    @property
    def _shows_feedback(self) -> bool:
        return templates.FEEDBACK in self._refine.variables

    def _program(self, prompt: Prompt, completion: Completion) -> Program:
        name = prompt.payload.fn_name
        return Program(
            self.extract(completion.text),
            tests=self._tests[prompt.id],
            fn_name=name,
            isolate="test" if name is None or self._shows_feedback else self._isolate,
        )

    def _detailed(self, reward: Reward, prompt: Prompt, source: str, verdict: Verdict) -> Reward:
        return replace(
            reward,
            feedback=feedback(prompt.payload, source, verdict, self._visible[prompt.id]),
            failure=failure(prompt.payload, source, verdict),
            passed=tuple(test.outcome is Outcome.passed for test in verdict.tests),
        )

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        """Return True if ỹ hard-codes the shown test; False if the template shows none, or y does not compile.

        A program that passes all tests, including hidden ones, is correct whatever literals it contains.
        """
        y, visible = rollout.reward, self._visible[rollout.prompt.id]
        if not self._shows_feedback or y is None or reward is None:
            return False
        if y.outcome == "compile_error" or all(y.passed[:visible]):
            return False  # no test was shown
        if gains_only_shown(y.passed, reward.passed, visible):
            return True
        if len(reward.passed) > visible and all(reward.passed):
            return False
        shown = rollout.prompt.payload.tests[y.passed.index(False)]
        return names_the_answer(self.extract(refined.text), shown)

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """Return ỹ: the reply without chat text around the template's markers, bare code in y's own fence.

        A reply that contains fences is kept as it is, because the refiner has chosen their content and the text around.
        """
        response = self._refine.strip_markers(reply)
        block = find_block(rollout.completion.text, self._block)
        if block is None or "```" in response or not is_python(response):
            return response
        made = block.with_code(response)
        scored = find_block(made, self._block)
        if scored is not None and scored.before == block.before:
            return made
        return f"{block.ticks}python\n{response.strip()}\n{block.ticks}"  # shorter than another block of y

    def telemetry(self) -> Mapping[str, float]:
        """Return metrics collected since the last call.

        They are the tests per second (0 if none ran), the number of answers (y and ỹ) that the sandbox failed to judge,
        and the number of scored answers with several code blocks.
        """
        several, masked = self._several, self._masked
        self._several = self._masked = 0
        if self._judging is None:
            return {}
        tests, seconds = self._judging.take_counts()
        return {
            "sandbox/tests_per_second": tests / seconds if seconds else 0.0,
            "sandbox/errors": float(masked),
            "completion/several_blocks": float(several),
        }

    def close(self) -> None:
        """End the sandbox's processes, and what they judge in the background."""
        if self._box is not None:
            self._box.close()  # first: it cancels the programs that run, which `Judging.close` would wait for
        if self._judging is not None:
            self._judging.close()


def _key(prompt: Prompt, program: Program) -> Key:
    return Key(prompt.id, program.isolate, program.source)


def rewards_of(
    verdicts: Sequence[Verdict], reward: Literal["adaptive", "coarse"], max_sandbox_errors: float
) -> list[Reward | None]:
    """Turn verdicts into rewards by Eq. 8 or Eq. 7; None where the sandbox was at fault.

    Raises:
        SandboxError: the sandbox was at fault in more than the share `max_sandbox_errors` of the verdicts, or in all. A
            single fault among others is tolerated unless the share is 0.
    """
    faults = sum(verdict.outcome is Outcome.sandbox_error for verdict in verdicts)
    tolerated = max(1.0, max_sandbox_errors * len(verdicts)) if max_sandbox_errors else 0.0
    if faults > tolerated or faults == len(verdicts) > 0:
        raise SandboxError(
            f"the sandbox failed on {faults} of {len(verdicts)} programs; "
            f"max_sandbox_errors tolerates {max_sandbox_errors:g} of a batch"
        )
    rewards: list[Reward | None] = []
    for verdict in verdicts:
        if verdict.outcome is Outcome.sandbox_error:
            rewards.append(None)
            continue
        outcome, rate = verdict.outcome.value, verdict.pass_rate
        value = coarse_reward(outcome) if reward == "coarse" else adaptive_reward(outcome, rate)
        rewards.append(Reward(value, outcome, rate))
    return rewards


def sandbox_tests(problem: Problem) -> list[Test]:
    """Convert a problem's tests for the sandbox, and check them now rather than in the middle of a run.

    Raises:
        UserError: a test cannot be used.
    """
    try:
        tests = [Test(input=case.input, expected=case.expected) for case in problem.tests]
        Program("", tests=tests, fn_name=problem.fn_name)
        return tests
    except ValueError as error:
        raise UserError(f"problem {problem.id}: a test cannot be used: {error}") from error


COLUMNS = ("problem_id", "question", "starter_code", "fn_name", "inputs", "outputs", "difficulty", "solutions")


def _columns(problem: Problem) -> dict[str, Any]:
    """Return a problem's fields by their names in APPS's layout."""
    values = (
        problem.id,
        problem.question,
        problem.starter_code,
        problem.fn_name,
        [case.input for case in problem.tests],
        [case.expected for case in problem.tests],
        problem.difficulty,
        list(problem.solutions),
    )
    return dict(zip(COLUMNS, values, strict=True))
