"""A refiner tried before a run: what it improves and what it costs.

command   `python -m refinerl.audition`
trial     its numbers, and the control's
"""
