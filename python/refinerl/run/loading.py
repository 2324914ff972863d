"""The models that a run starts from, loaded by name or copied from given objects; used by `run/wiring.py`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from refinerl.config import Config
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.run.given import Given, refuse_object
from refinerl.run.preflight import check_chat


@dataclass(frozen=True)
class Loaded:
    """The models and the tokenizer at the start of a run."""

    name: str
    """The name for `from_pretrained`; for a model given as an object, its name in the configuration."""
    tokenizer: ChatTokenizer
    policy: PreTrainedModel
    reference: PreTrainedModel | None
    """The frozen reference; None for a LoRA policy, whose base model is the reference."""


def load(config: Config, given: Given, device: str) -> Loaded:
    """Load the models that the configuration names, or copy the given one.

    Raises:
        UserError: a model or the tokenizer cannot be loaded, or the tokenizer has more tokens than the model.
    """
    name = resolve_model(config.model)
    by_name = given.model is None and given.adapted is None
    if by_name:
        refuse_object(name, "model", "model")
    tokenizer = _tokenizer(config, given, name) if by_name or given.tokenizer is None else None
    if tokenizer is not None:
        check_chat(config, tokenizer)
    reference = None
    if given.adapted is not None:
        policy = given.adapted.get_base_model()
    elif given.model is not None:
        policy = copy.deepcopy(given.model).eval()
        reference = None if config.lora.rank else given.model.eval()
    else:
        policy = load_model(name, dtype=config.dtype)
        reference = None if config.lora.rank else load_model(name, dtype=config.dtype)
    if tokenizer is None:
        tokenizer = _tokenizer(config, given, policy)
        check_chat(config, tokenizer)
    known = policy.get_input_embeddings().num_embeddings
    if len(tokenizer.inner) > known:
        raise UserError(
            f"the tokenizer has {len(tokenizer.inner)} tokens and the model embeds {known}: give the model's own "
            "tokenizer, or save the model after model.resize_token_embeddings(len(tokenizer))"
        )
    if reference is not None and not config.engines.offload_reference:
        reference = reference.to(device)
    return Loaded(name, tokenizer, policy.to(device), reference)


def _tokenizer(config: Config, given: Given, owner: Any) -> ChatTokenizer:
    """Load the tokenizer of a model, or wrap the given one; `owner` is the model or its name."""
    template, date = config.chat_template, config.chat_template_date
    if given.tokenizer is not None:
        return ChatTokenizer.of(given.tokenizer, owner, chat_template=template, date=date)
    return ChatTokenizer.load(owner, chat_template=template, date=date)


def trunk_for_critic(config: Config, given: Given) -> PreTrainedModel | None:
    """Copy the trunk of a given model for the critic; None if the critic is loaded by name."""
    if config.critic.model != config.model or (given.model is None and given.adapted is None):
        return None
    model: Any = copy.deepcopy(given.model) if given.adapted is None else copy.deepcopy(given.adapted).unload()
    trunk: PreTrainedModel = model.base_model
    return trunk.eval()
