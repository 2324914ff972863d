"""A refiner whose replies and rewards the test decides."""

from __future__ import annotations

from building import prompt
from refinerl.loop.author import ModelAuthor
from refinerl.loop.refiner import Refiner
from refinerl.records import Completion, Reward, Rollout, RolloutGroup, Sampling
from scripted import EOS, Points, Writer, clock, decode, encode

POINTS = Points(bad=-1.0, fair=0.0, good=1.0, badly=0.5)
OTHER_EOS = 3
SPECIAL = frozenset({EOS, OTHER_EOS})


def rollout(text, value, sample=0):
    reward = None if value is None else Reward(value, "scored")
    return Rollout(prompt("x"), Completion((*encode(text), EOS), (), text, "stop"), reward, sample)


def refiner(writer, *, accept="better", context=1000, max_tokens=8, task=POINTS, fold=str, **options):
    return Refiner(
        author=ModelAuthor(writer, lambda messages: encode(messages[0]["content"])),
        task=task,
        sampling=Sampling(max_tokens, temperature=0.0),
        answering=Sampling(max_tokens),
        encode=lambda text: encode(fold(text)),
        decode=lambda ids: decode([i for i in ids if i not in SPECIAL]),
        eos_token_id=EOS,
        special_token_ids=SPECIAL,
        context_length=context,
        accept=accept,
        seed=0,
        clock=clock,
        **options,
    )


def refine(replies, *rollouts, reads=1000, **options):
    writer = Writer(lambda asked, _: replies[asked], context_length=reads)
    return writer, refiner(writer, **options).refine([RolloutGroup(prompt("x"), rollouts)], step=1)
