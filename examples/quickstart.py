"""Fine-tune a small model on sums: cell by cell in a notebook, or all at once with `python examples/quickstart.py`."""

# %% The task: sums, as messages. Columns beside `prompt` are passed to the rewards.
import random
import re

import refinerl

draw = random.Random(0)
pairs = [(draw.randrange(10, 100), draw.randrange(10, 100)) for _ in range(200)]
prompts = [
    {"prompt": [{"role": "user", "content": f"What is {a} + {b}? Answer with a number."}], "answer": a + b}
    for a, b in pairs
]


# %% Two rewards in TRL's signature: the last number is right, and the answer is short.
def correct(completions, answer, **_):
    numbers = [re.findall(r"\d+", completion[0]["content"]) for completion in completions]
    return [float(bool(found) and int(found[-1]) == right) for found, right in zip(numbers, answer, strict=True)]


def brevity(completions, **_):
    return [-len(completion[0]["content"]) / 100 for completion in completions]


# %% Training. The frozen model corrects wrong answers, and corrections that score higher teach the policy.
MODEL = "smollm2-135m-instruct"  # bundled with `make setup`; any causal language model works
KNOBS = {
    "trainer.steps": 6,
    "trainer.batch": 16,
    "trainer.learning_rate": 2e-5,
    "algorithm.samples_per_prompt": 4,
    "generation.max_tokens": 24,
}

run = refinerl.fine_tune(
    model=MODEL,
    prompts=prompts,
    reward=[correct, brevity],
    reward_weights=[1.0, 0.1],
    constraint="dynamic",
    on_step=lambda row: print(row["step"], row["reward/mean"], row["refiner/improved_ratio"]),
    **KNOBS,
)
print(run)

# %% The run: a row of metrics for each step, every response with its refinement, and a report.
print(run.metrics[-1]["reward/mean"])
for row in run.rollouts(step=1)[:4]:
    refined = "" if row.refinement is None else f" -> {row.refinement.completion.text!r}"
    print(f"{row.prompt.text}  {row.completion.text!r}{refined}")
print(run.folder, run.report())

# %% The trained model, which is transformers' own.
ask = run.tokenizer.apply_chat_template(prompts[0]["prompt"], add_generation_prompt=True, return_tensors="pt")
written = run.model.generate(ask["input_ids"], max_new_tokens=24, do_sample=False)
print(run.tokenizer.decode(written[0, ask["input_ids"].shape[1] :], skip_special_tokens=True))
