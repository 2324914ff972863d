"""A run: its configuration becomes parts, its steps become a folder.

command      a run from start to end, and the command line that asks for one
library      the same from Python: `refinerl.fine_tune` and the run it returns
asked        its arguments -> a configuration, and the objects that it names (given)
borrowed     what a run in somebody else's process leaves as it found it
arguments    the command line, read before torch is imported
recipe       recipe + parts + overrides -> Config
plan         `--dry-run`; plan_memory: its table of phases
placement    see that a run's devices can do what it asks of them
launch       the processes of a run
wiring       choose and connect the parts: tasks, trainers, generators
pace         the numbers of the loop, and when a run ends itself
checkpoint   a run's folder and its state
keeper       when a checkpoint is due, and what a run that ends too early still saves
telemetry    metrics.jsonl, rollouts/, trackers, progress
doctor       what works on this machine
memory       bytes of each phase, and the knobs that change them
"""
