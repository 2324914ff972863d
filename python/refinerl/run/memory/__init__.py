"""Memory: what a run takes of each GPU and of the host, by arithmetic, and what to turn where it ends.

exhaustion: the message of a phase that ran out of it · shapes: of models, known or read from a folder
learning: what a model that learns holds · passing: what forward and backward passes take for a moment
phases: all of it, phase by phase · advice: the knob and the value that make a phase fit
"""

from refinerl.run.memory.exhaustion import KNOBS, explained
from refinerl.run.memory.learning import Shares, Training, held
from refinerl.run.memory.passing import staying, update_peak
from refinerl.run.memory.shapes import Shape, find, parameters

__all__ = ["KNOBS", "Shape", "Shares", "Training", "explained", "find", "held", "parameters", "staying", "update_peak"]
