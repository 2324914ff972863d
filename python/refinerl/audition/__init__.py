"""The audition of a refiner before a run: what it improves and what it costs.

command     `python -m refinerl.audition`
trial       its measurements, and those of the controls
judgement   standard errors and verdicts
"""
