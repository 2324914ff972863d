"""A finished run: a page, the paper's figures, a model card, training data, its models, a summary.

command   `python -m refinerl.report`
page      a run as one HTML page
watch     the page, served while the run goes on
figures   the paper's figures, from runs and studies
card      a model card, and the upload to the hub
export    rollouts as rows for supervised or preference training
model     the models of a run: found for `refinerl.evaluate`, and exported
rows      the rows of rollouts/, made and written · reading: read
metrics   the rows of metrics.jsonl · schema: versions of both files
summary   a finished run in the terminal
missing   the packages of the extra `report`
unfinished  files whose last line is cut off
resumptions  the steps after which the run was resumed
windows   means of metrics over the first and the last steps
"""
