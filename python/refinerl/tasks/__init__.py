"""Where prompts and rewards come from.

- `base`: the defaults of a task of your own
- `code`: programs judged by tests (Eqs. 7-8)
- `dialogue`: conversations, rewarded by a reward model, a rule or a function of the user's
- `conversations`: their prompts, from JSON lines, `datasets` or the hub
- `reward_model`: scores of a sequence classifier
- `rules`: rewards that check an answer against a column
- `apps`: problems in the layout of the APPS data set
- `fences`: the program inside a chat answer
- `user_reward`: reward functions by import path, in TRL's signature
- `templates`, `prompts/`: what policy and refiner are asked
"""

from refinerl.tasks.base import Task

__all__ = ["Task"]
