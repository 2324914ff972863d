"""Audition of a refiner before a run: the improvements that it makes, and their cost.

command     `python -m refinerl.audition`
trial       measurements of refiners and controls
judgement   standard errors and verdicts
"""
