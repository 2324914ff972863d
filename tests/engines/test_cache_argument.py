"""The name under which a model's forward takes its cache of keys and values, before and since transformers 5.24."""

from __future__ import annotations

import functools
import warnings

import pytest
from torch import nn

from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Sampling
from tiny import tiny_model, tiny_tokenizer


class Earlier(nn.Module):
    def forward(self, input_ids, past_key_values=None, use_cache=None):
        """Do nothing."""


class Later(nn.Module):
    def forward(self, input_ids, cache=None, use_cache=None):
        """Do nothing."""


def deprecating(forward):
    """Do as transformers' own decorator does, which warns of the earlier name."""

    @functools.wraps(forward)
    def wrapped(*args, **kwargs):
        if "past_key_values" in kwargs:
            warnings.warn("`past_key_values` is deprecated", FutureWarning, stacklevel=2)
            kwargs["cache"] = kwargs.pop("past_key_values")
        return forward(*args, **kwargs)

    return wrapped


class Decorated(nn.Module):
    @deprecating
    def forward(self, input_ids, cache=None, use_cache=None):
        """Do nothing."""


class Derived(Later):
    def forward(self, *args, **options):
        return super().forward(*args, **options)


class Untold(nn.Module):
    def forward(self, *args, **options):
        """Do nothing."""


class Both(nn.Module):
    def forward(self, input_ids, past_key_values=None, cache=None):
        """Have another argument of the later name."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Earlier, "past_key_values"),
        (Later, "cache"),
        (Decorated, "cache"),
        (Derived, "cache"),
        (Untold, "past_key_values"),
        (Both, "past_key_values"),
    ],
)
def test_the_name_is_that_of_the_signature(kind, name):
    store = object()
    assert cache_argument(kind(), store) == {name: store}


@pytest.mark.parametrize("guesses", [0, 4])
@pytest.mark.parametrize("wanted", ["cache", "past_key_values"])
def test_the_engine_uses_the_name_that_the_model_has(monkeypatch, guesses, wanted):
    """A stand-in has the signature of one release, and hands the cache on to the installed one."""
    tokenizer = tiny_tokenizer()
    model = tiny_model()
    (installed,) = cache_argument(model, None)
    engine = TransformersGenerator(model, ChatTokenizer(tokenizer), guesses=guesses)
    prompts = [tokenizer.encode("What?"), tokenizer.encode("def f")]
    sampling = Sampling(max_tokens=8, n=1, temperature=0.0, seeds=[[0], [1]])
    drafts = [tokenizer.encode("What is it"), tokenizer.encode("def g")] if guesses else None
    expected = engine.generate(prompts, sampling, drafts=drafts)
    for kind in (type(model), type(model.base_model)):
        seen: list[str] = []
        forward = kind.forward

        def given(self, options, seen=seen, forward=forward):
            names = {"cache", "past_key_values"} & options.keys()
            seen.extend(names)
            for name in names:
                options[installed] = options.pop(name)
            return forward(self, **options)

        def with_cache(self, input_ids=None, cache=None, given=given, **options):
            return given(self, {"input_ids": input_ids, **({} if cache is None else {"cache": cache}), **options})

        def with_past(self, input_ids=None, past_key_values=None, given=given, **options):
            past = {} if past_key_values is None else {"past_key_values": past_key_values}
            return given(self, {"input_ids": input_ids, **past, **options})

        with monkeypatch.context() as patch:
            patch.setattr(kind, "forward", with_cache if wanted == "cache" else with_past)
            found = engine.generate(prompts, sampling, drafts=drafts)
        assert [[c.token_ids for c in row] for row in found] == [[c.token_ids for c in row] for row in expected]
        if kind is type(model):
            assert set(seen) == {wanted}
        else:  # the model calls its own trunk with the name of its own release
            assert wanted in seen
