"""What a run leaves for others: a page, training data, a summary.

command   `python -m refinerl.report`
page      a run as one HTML page
rows      the schema and form of a run's rows
export    rollouts -> rows for supervised or preference training
summary   a finished run in the terminal
"""
