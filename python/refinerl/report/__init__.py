"""What a run leaves for others: a page, training data, a summary.

command   `python -m refinerl.report`
page      a run as one HTML page
rows      a rollout's row, written and read
export    rollouts -> rows for supervised or preference training
summary   a finished run in the terminal
"""
