"""The matrix of cases. docs/robustness.md lists them by name, and `test_table.py` compares the two."""

from __future__ import annotations

from chaos.runs import Case

# --- ranks: vLLM and DeepSpeed, two processes -----------------------------------------------------------------------

PHASES: dict[str, tuple[str, int, str]] = {
    "load": ("load ", 1, r"load \S+"),
    "engines": ("engines:", 1, "engines: vllm"),
    "generate": ("generate", 1, "generate of step 1"),
    "generated": ("generated", 2, "generate of step 1"),  # the first call is the evaluation before step 1
    "score": ("score", 1, "score of step 1"),
    "refine": ("refine", 2, "refine of step 2"),
    "update": ("backward", 1, r"update of step \d"),
    "optimizer": ("optimizer", 1, r"update of step \d"),
    "hand-over": ("hand-over", 2, r"sync of step \d"),
    "evaluate": ("evaluate", 1, r"evaluate of step \d"),
    "checkpoint": ("shards", 1, r"checkpoint-\d"),
    "final": ("final/", 1, "final/"),
}
"""For each phase: its moment, the occurrence of the moment that counts, and a pattern of the phase in the message."""

TIMEOUT = 6


def on_ranks(event: str, rank: int, phase: str) -> Case:
    """Build the case of a rank that is killed, or stopped for good, in a phase."""
    moment, count, named = PHASES[phase]
    plan = {"rank": rank, "moment": moment, "count": count, "event": event}
    codes = tuple(-9 if other == rank else 1 for other in range(2))
    name = f"{event}-{rank}-{phase}"
    going_on = r"; (no checkpoint was written yet, so --resume begins again|--resume goes on [^;]*)$"
    if event == "kill":
        says = rf"^stopped: rank {rank} died in phase {named} without a word .*{going_on}"
        return Case(name, says, codes, plan)
    says = (
        rf"^stopped: rank {rank} has been silent for \d+ seconds in phase {named} "
        rf"\(engines.timeout = {TIMEOUT} seconds\): its process is stopped, .*{going_on}"
    )
    return Case(name, says, codes, plan, overrides=(f"engines.timeout={TIMEOUT}",), within=TIMEOUT + 30)


CHAINS: dict[str, list[Case]] = {
    f"{event}-{rank}": [on_ranks(event, rank, phase) for phase in PHASES]
    for event in ("kill", "stop")
    for rank in (0, 1)
}
"""Chains of cases, in each of which a run resumes from what the previous case left."""

SHORT = [
    on_ranks("kill", 1, "engines"),
    on_ranks("stop", 0, "score"),
    on_ranks("kill", 0, "refine"),
    on_ranks("stop", 1, "hand-over"),
    on_ranks("kill", 1, "checkpoint"),
]
"""The chain that runs without REFINERL_CHAOS=1."""

# --- a reward function ----------------------------------------------------------------------------------------------

NONSENSE = {
    "too few": r"returned \d+ values, not \d+",
    "too many": r"returned \d+ values, not \d+",
    "without end": r"returned more than \d+ values",
    "strings": r"must return numbers or None, got '",
    "a string": r"must return a list of numbers, got '",
    "nan": "returned nan for completion 0",
    "infinity": "returned inf for completion 0",
    "huge": "returned inf for completion 0",
    "a matrix": r"must return numbers or None, got \[",
    "nothing": "must return a list of numbers, got None",
    "quits": r"it raised SystemExit\(3\)",
    "cancels": r"it raised CancelledError\(\)",
}


def of_reward(kind: str, says: str, code: int = 2, **more: object) -> Case:
    """Build the case of a reward function that fails in the second step."""
    return Case(f"reward-{kind.replace(' ', '-')}", says, (code,), env={"REWARD": f"{kind}:3"}, **more)  # type: ignore[arg-type]


LIMITED = r"^error: the reward function \S+ took longer than task.reward_seconds = 1.*: choose task.reward_seconds=2 if"

REWARDS = [
    *(of_reward(kind, LIMITED, overrides=("task.reward_seconds=1",)) for kind in ("hangs", "computes", "awaits")),
    of_reward("hangs natively", LIMITED, overrides=("task.reward_seconds=1",)),
    of_reward(
        "raises", r"^stopped: ZeroDivisionError in score of step 2; .* --resume goes on after step 1", 1, traceback=True
    ),
    of_reward("wants memory", "^stopped: out of memory in phase score: .*--resume goes on", 1),
    *(of_reward(kind, rf"^error: the reward function \S+ .*{says}") for kind, says in NONSENSE.items()),
    of_reward("none everywhere", ""),
]

# --- a full disk ----------------------------------------------------------------------------------------------------


def full(name: str, moment: str, leave: int = 0) -> Case:
    """Build the case of a full disk under the run's folder."""
    says = r"^error: the disk that holds \S+ is full; .*--resume"
    return Case(f"disk-{name}", says, (2,), plan={"rank": 0, "moment": moment, "event": "fill", "leave": leave})


DISK = [
    full("begin", "begin"),
    full("rollouts", "rollouts"),
    full("metrics", "metrics"),
    full("checkpoint", "checkpoint-"),
    full("checkpoint-half", "checkpoint-", 2_500_000),
    full("final", "final/"),
    full("final-half", "final/", 2_500_000),
]

# --- the sandbox's processes ----------------------------------------------------------------------------------------

SANDBOX = [
    Case(
        f"sandbox-{event.replace(' ', '-')}",
        codes=(0,),
        plan={"rank": 0, "moment": "judge", "event": event},
        within=60,
    )
    for event in (
        "kill interpreters",
        "stop interpreters",
        "kill busy interpreters",
        "stop busy interpreters",
        "kill programs",
        "stop programs",
    )
]

# --- the reward model's device --------------------------------------------------------------------------------------

MEMORY = [
    Case(
        f"memory-{name}",
        rf"^stopped: out of memory in phase {named}: .*; --resume goes on",
        plan={"rank": 0, "moment": moment, "event": "exhaust", "count": count, "leave": 1000},
    )
    for name, moment, count, named in (
        ("load", "reward model", 1, r"load \S+"),
        ("score", "model scores", 3, "score"),
    )
]

ALL = [*(case for chain in CHAINS.values() for case in chain), *REWARDS, *DISK, *SANDBOX, *MEMORY]
