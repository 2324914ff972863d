"""The memory of a run on each GPU and on the host, by arithmetic, and the knobs that change it.

exhaustion   the message of a phase that ran out of memory
shapes       shapes of models, known or read from a folder
learning     memory that a model in training holds
passing      memory that forward and backward passes use temporarily
phases       the memory of each phase
advice       knobs and values with which a run fits
"""

from refinerl.run.memory.exhaustion import KNOBS, explained
from refinerl.run.memory.learning import Shares, Training, held
from refinerl.run.memory.passing import staying, update_peak
from refinerl.run.memory.shapes import Shape, find, parameters

__all__ = ["KNOBS", "Shape", "Shares", "Training", "explained", "find", "held", "parameters", "staying", "update_peak"]
