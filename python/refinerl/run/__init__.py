"""A run of the command: its configuration becomes parts, its steps become a folder.

arguments    the command line, read before torch is imported
recipe       recipe + parts + overrides -> Config
plan         `--dry-run`; plan_memory: its table of phases
placement    see that a run's devices can do what it asks of them
launch       the processes of a run
wiring       choose and connect the parts: tasks, trainers, generators
checkpoint   a run's folder and its state
telemetry    metrics.jsonl, rollouts/, trackers, progress
doctor       what works on this machine
memory       bytes of each phase, and the knobs that change them
"""
