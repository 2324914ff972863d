"""pass@k on public benchmarks; every program runs in the sandbox, every comparison happens outside it.

- `suite`: what a benchmark is made of
- `humaneval`, `mbpp`, `apps`: the families, read from files
- `files`, `hub`: finding the files, and knowing which version they are
- `mbpp_types`: the Python types that JSON lost
- `oracle`: when a returned value is right
- `scoring`: samples -> results
- `prompting`: what a model is asked, where it stops, which part of the answer is the program
- `samples`: existing generations
- `estimate`: pass@k and its interval
- `results`: results.jsonl, summary.json, the table
- `failures`: the samples that fail, on the console and as a page
- `evaluator`: a model on a benchmark, for the command and inside training
"""
