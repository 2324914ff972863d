"""Tasks: sources of prompts and rewards.

- `base`: the base class of tasks of your own
- `code`: programs judged by tests (Eqs. 7-8)
- `dialogue`: conversations, rewarded by a reward model, rules or functions
- `refining`: how a task asks the refiner; shared by all
- `templates`, `prompts/`: the texts that ask policy and refiner
- `feedback`, `hard_coding`: what the refiner is told of an answer, and programs that exploit it
- `fences`: the program in a chat answer
- `reward_model`: scores of a sequence classifier
- `rules`: rewards that check an answer against a column · `countdown`: one of them
- `math_rule`: another, which asks math-verify · `math_judges`: its processes · `math_worker`: their program
- `user_reward`: reward functions by import path, in TRL's signature · `time_limit`: of one call
- `reward_sum`: several rewards as one
"""

from refinerl.tasks.base import Task

__all__ = ["Task"]
