"""Benchmarks with pass@k. Every program runs in the sandbox, and every comparison happens outside of it.

- `suite`: the records of a benchmark
- `load`: a suite by its name
- `humaneval`, `mbpp`, `apps`, `livecodebench`: readers of the four families
- `files`: finding and verifying a benchmark's files
- `mbpp_types`: Python types that JSON lost
- `oracle`: the rules by which a returned value is right
- `scoring`: from samples to results
- `prompting`: prompts, stop sequences, and the program in an answer
- `samples`: existing generations
- `estimate`: pass@k and its interval
- `results`: results.jsonl, summary.json, the table
- `failures`: failing samples, on the console and as a page
- `evaluator`: a model on a benchmark, for the command and during training
- `held_out`: a model on held-out rows of its training task
- `arguments`, `model`, `journal`, `progress`: the command's options, its model, its unfinished results, its progress
"""
