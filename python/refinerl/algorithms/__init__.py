"""Algorithms, which turn rewards into a policy gradient: one file each, with equation, options and class.

base   the defaults of an algorithm, and of one that compares the responses to a prompt
dapo   group advantages, clip-higher, dynamic sampling
ppo    GAE and a critic
"""

from refinerl.algorithms.base import Algorithm, GroupAlgorithm

__all__ = ["Algorithm", "GroupAlgorithm"]
