"""A run: from its configuration to the files in its folder.

command      a run from start to end, and the command line that starts one
library      the same from Python: `refinerl.fine_tune` and the `Run` that it returns
asked        the arguments of fine_tune -> a configuration, and the objects that they hold (given)
borrowed     global state of the process, restored after a run
arguments    the command line, parsed before torch is imported
recipe       recipe + parts + overrides -> Config; layers: what it is merged from; places: paths are relative to the
             recipe that sets them
plan         `--dry-run`; plan_memory: its table of phases
placement    checks of devices and ranks before anything is loaded
launch       the processes of a run
wiring       selects and connects the parts: loading, tasks, trainers, generators, evaluation
pace         the numbers of the training loop, and the guards that stop it
checkpoint   a run's folder and its state, with random_states
keeper       when a checkpoint is due, and what an interrupted run still saves
interruption Ctrl-C and SIGTERM: what is finished first
telemetry    metrics.jsonl, rollouts/
display      what the console shows: live (the view on a terminal), folded (a refinement in it), step_line
trackers     TensorBoard, Weights & Biases, Trackio, MLflow
doctor       what works on this machine
memory       the memory of each phase, and the knobs that change it
"""
