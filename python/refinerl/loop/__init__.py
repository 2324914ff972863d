"""The loop's parts, from prompts to one update.

stream    the order of the prompts
rollout   prompts -> scored groups
refiner   rollouts -> refinements
batch     records -> padded tensors
update    one batch -> one policy update
metrics   a step's metrics
"""
