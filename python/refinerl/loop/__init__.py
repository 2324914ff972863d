"""The loop's parts, from prompts to one update.

stream    the order of the prompts
rollout   prompts -> scored groups
choice    which rollouts are refined
refiner   rollouts -> refinements
requests  what the refiner is asked, once for equal responses
drafts    responses that may replace y, before they are scored
batch     records -> padded tensors
sharing   micro-batches of rows that share prefixes
measure   what an update needs to know of a batch before its gradient
update    one batch -> one policy update
before    the policy before the update, of the update's first forward passes
work      the constraint's share of an update
metrics   a step's metrics
"""
