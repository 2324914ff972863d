"""Loading of models by name: a hub id, a folder, or a bundled model (the miniature, SmolLM2)."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging

from refinerl.data import MINIATURE, MINIATURE_FAR
from refinerl.engines import bundled, devices
from refinerl.errors import UserError

DType = Literal["float32", "bfloat16", "float16", "float64"]


def resolve_model(name: str) -> str:
    """Return the name that `from_pretrained` reads: the folder of a bundled model, any other name unchanged.

    `miniature` and `miniature-far` are shipped with the package; `smollm2-135m-instruct` is converted once to a cache
    folder.
    """
    match name.lower():
        case bundled.NAME:
            return str(bundled.bundled_model())
        case "miniature":
            return str(MINIATURE / "base")
        case "miniature-far":
            return str(MINIATURE_FAR / "base")
        case _:
            return name


def load_model(name: str, *, dtype: DType = "float32", attn: str | None = None) -> PreTrainedModel:
    """Load the causal language model `name`, in evaluation mode, on the CPU.

    `attn` is transformers' `attn_implementation` (None: its default). A folder with an adapter, such as a LoRA run
    writes, gives the adapter's base model with the adapter merged into its weights.

    Raises:
        UserError: there is no such folder or hub id, or it holds no causal language model.
    """
    folder = resolve_model(name)
    with loading(name), quiet():
        base = base_of(folder)
        config = AutoConfig.from_pretrained(base)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise UserError(f"model {name!r} is of type {config.model_type!r}, which is no causal language model")
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, **_options(dtype, attn))
        if base != folder:
            _merge_adapter(model, folder)
    return model.eval()


def base_of(folder: str) -> str:
    """Return the base model of an adapter's folder; any other name unchanged."""
    adapter = Path(folder) / "adapter_config.json"
    if not adapter.is_file() or (Path(folder) / "config.json").exists():
        return folder
    return str(json.loads(adapter.read_text())["base_model_name_or_path"])


def _merge_adapter(model: PreTrainedModel, folder: str) -> None:
    """Load an adapter and merge it into the model's weights; the model's layers are plain ones afterwards."""
    names = getattr(model, "_weight_conversions", None)  # transformers would save the weights by the adapter's names
    model.load_adapter(folder)
    wrapped = [(name, m) for name, m in model.named_modules() if hasattr(m, "base_layer") and hasattr(m, "merge")]
    for name, layer in wrapped:
        layer.merge()
        model.set_submodule(name, layer.base_layer)
    model._hf_peft_config_loaded, model._weight_conversions = False, names
    del model.peft_config


def load_trunk(
    name: str, *, dtype: DType = "float32", attn: str | None = None, normalize: bool = False
) -> tuple[PreTrainedModel, nn.Linear | None]:
    """Load the model `name` without its language-model head, and with its scalar head if it is a reward model.

    `normalize` makes the head give (score − mean) / std, by the mean and std of its config if it has them.
    Errors as in `load_model`.
    """
    folder = resolve_model(name)
    with loading(name), quiet():
        config = AutoConfig.from_pretrained(base_of(folder))
    if not is_openrlhf(config) and not _architecture(config).endswith("ForSequenceClassification"):
        return load_model(name, dtype=dtype, attn=attn).base_model, None
    model = load_reward_model(name, dtype=dtype, attn=attn)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise UserError(f"model {name!r} has no linear score, so it cannot become a critic")
    if normalize and getattr(model.config, "std", None):
        return model.base_model, _normalized(model.score, model.config.mean, model.config.std)
    return model.base_model, model.score


def _normalized(head: nn.Linear, mean: float, std: float) -> nn.Linear:
    scaled = nn.Linear(head.in_features, 1, device=head.weight.device, dtype=head.weight.dtype)
    with torch.no_grad():
        scaled.weight.copy_(head.weight / std)
        scaled.bias.copy_(((0.0 if head.bias is None else head.bias) - mean) / std * torch.ones_like(scaled.bias))
    return scaled


def load_reward_model(name: str, *, dtype: DType = "float32", attn: str | None = None) -> PreTrainedModel:
    """Load the reward model `name`: a sequence classifier with one score, in evaluation mode, on the CPU.

    Two layouts are read: transformers' own, and OpenRLHF's, which saves a trunk and under `config.value_head_prefix`
    (`value_head` or `score`) a linear head; there it becomes the classifier's `score`. The mean and standard deviation
    of its rewards, where it has them, stay in its config.

    Raises:
        UserError: there is no such folder or hub id, its weights hold no head, or the head has more than one output.
    """
    folder = resolve_model(name)
    with loading(name), quiet():
        config = AutoConfig.from_pretrained(folder)
        head: dict[str, Any] = {}
        if is_openrlhf(config):
            prefix = getattr(config, "value_head_prefix", "value_head")
            head = {"num_labels": 1, "key_mapping": {rf"^{re.escape(prefix)}\.": "score."}}
        with _errors_only():  # a head that is missing is an error below, not a warning
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, output_loading_info=True, **head, **_options(dtype, attn)
            )
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(f"{model.base_model_prefix}."))
    if missing:
        raise UserError(
            f"model {name!r} is no reward model: its weights hold no head ({', '.join(missing)} is missing); give an "
            "AutoModelForSequenceClassification with one label or a reward model in OpenRLHF's layout"
        )
    if info["missing_keys"]:
        raise UserError(
            f"model {name!r} lacks {len(info['missing_keys'])} of its weights, such as {min(info['missing_keys'])}"
        )
    if model.config.num_labels != 1:
        raise UserError(
            f"model {name!r} classifies into {model.config.num_labels} labels; a reward model has one score"
        )
    reward_model: PreTrainedModel = model.eval()
    return reward_model


def is_openrlhf(config: Any) -> bool:
    """Tell whether a configuration is that of a reward model saved by OpenRLHF."""
    return _architecture(config) == "RewardModel"


def _architecture(config: Any) -> str:
    return str((config.architectures or [""])[0])


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _options(dtype: DType, attn: str | None) -> dict[str, Any]:
    return {"dtype": getattr(torch, dtype), **({} if attn is None else {"attn_implementation": attn})}


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn the exceptions that `from_pretrained` raises for an unusable name into a `UserError`."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot load model {name!r}: give the folder of a saved model, a hub id, 'miniature' or {bundled.NAME!r} "
            f"({reason})"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars, which would disturb ours, and DeepSpeed's messages at its import."""
    name_accelerator()
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def name_accelerator() -> None:
    """Name DeepSpeed's accelerator, so that it does not search for a GPU and warn when transformers imports it."""
    os.environ.setdefault("DS_ACCELERATOR", devices.accelerator())
