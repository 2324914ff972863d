"""Training with DeepSpeed. The only package that imports deepspeed, and only once a trainer is made.

trainer.py the trainer · engine.py DeepSpeed's engine under it: import, configuration, start · rows.py a network as
DeepSpeed sees it: tuples of tensors
"""

from refinerl.engines.deepspeed.trainer import DeepSpeedTrainer

__all__ = ["DeepSpeedTrainer"]
