"""The base model of the miniature, a Llama of a third of a million parameters, and its supervised training."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.study.miniature import corpus
from refinerl.study.miniature.operations import Shape
from refinerl.study.miniature.problems import CORPUS, draw
from refinerl.study.miniature.vocabulary import CODE, CONTEXT

Row = tuple[list[int], list[int]]
"""(tokens of the prompt, tokens of the answer with its EOS)"""


@dataclass(frozen=True)
class Training:
    """The settings of the supervised training."""

    seed: int = 0
    steps: int = 800
    batch: int = 64
    correcting: float = 0.6
    """Share of the rows that ask for a correction."""
    skill: float = 1.0
    """Share of wrong lines that the corrections to learn put right; the others stay wrong (`Attempt.corrected`)."""
    shape: Shape = "near"
    """Shape of the errors that the corpus has at hard operations."""
    start: str | None = None
    """Folder or name of a base to continue from, such as `miniature`; None: random weights."""
    width: int = 96
    layers: int = 3
    heads: int = 4
    learning_rate: float = 2e-3
    """AdamW's rate, for embeddings and norms."""
    matrix_rate: float = 2e-2
    """Muon's rate, for the matrices of the layers."""


def train(tokenizer: ChatTokenizer, settings: Training, say: Callable[[str], None] = print) -> LlamaForCausalLM:
    """Train a base model, on one thread; return it in float32.

    The settings and the versions of the libraries determine its weights on one machine. The global random generators
    and the number of threads are left as they were.

    Raises:
        UserError: this PyTorch has no Muon, or the base to continue from cannot be loaded.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = _model(tokenizer, settings) if settings.start is None else _started(tokenizer, settings.start)
            return _trained(model, _Rows(tokenizer, settings), settings, say)
    finally:
        torch.set_num_threads(threads)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the weights in bfloat16 and the configuration, for `from_pretrained`. The model is converted in place."""
    model.to(torch.bfloat16).save_pretrained(folder)


class _Rows:
    """Draws the rows of the training."""

    def __init__(self, tokenizer: ChatTokenizer, settings: Training) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(settings.seed)
        self.skill, self.shape = settings.skill, settings.shape
        self.alphabet = sorted({token for piece in CODE for token in tokenizer.encode(piece)})

    def writing(self) -> Row:
        """Draw a problem and a program of the corpus."""
        written = corpus.attempt(draw(self.rng, CORPUS, self.shape), self.rng)
        answer = list(self.tokenizer.encode(written.source))
        if self.rng.random() < corpus.TYPED:
            answer = corpus.mistyped(answer, self.rng, self.alphabet)
        return self._row(corpus.request(written.exercise), answer)

    def correcting(self) -> Row:
        """Draw a request to correct a program, and the correction."""
        errors = corpus.NO_ERRORS if self.rng.random() < corpus.RIGHT_ASKED else corpus.ERRORS
        written = corpus.attempt(draw(self.rng, CORPUS, self.shape), self.rng, errors)
        source = written.source
        if self.rng.random() < corpus.TYPED_ASKED:
            typed = corpus.mistyped(self.tokenizer.encode(source), self.rng, self.alphabet)
            source = self.tokenizer.decode(typed)
        answer = self.tokenizer.encode(written.corrected(self.rng, self.skill))
        return self._row(corpus.request_to_correct(written.exercise, source), list(answer))

    def _row(self, prompt: str, answer: list[int]) -> Row:
        return list(self.tokenizer.encode(prompt)), [*answer, self.tokenizer.eos_token_id]


def _model(tokenizer: ChatTokenizer, settings: Training) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer.inner),
        hidden_size=settings.width,
        intermediate_size=settings.width * 5 // 2,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def _started(tokenizer: ChatTokenizer, name: str) -> LlamaForCausalLM:
    """Load the base to continue from.

    Raises:
        UserError: it has another vocabulary, so it is no base of the miniature.
    """
    model, words = load_model(name), ChatTokenizer.load(resolve_model(name)).inner.get_vocab()
    if not isinstance(model, LlamaForCausalLM) or words != tokenizer.inner.get_vocab():
        raise UserError(f"--from must name a base of the miniature, such as --from miniature, got {name}")
    return model


def _trained(model: LlamaForCausalLM, rows: _Rows, settings: Training, say: Callable[[str], None]) -> LlamaForCausalLM:
    optimizers = _optimizers(model, settings)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    corrections = round(settings.batch * settings.correcting)
    model.train()
    for step in range(1, settings.steps + 1):
        for rate, group in zip(rates, (g for o in optimizers for g in o.param_groups), strict=True):
            group["lr"] = rate * _schedule(step, settings.steps)
        writing = _loss(model, [rows.writing() for _ in range(settings.batch - corrections)], rows.tokenizer)
        torch.autograd.backward(writing * (1 - settings.correcting))
        correcting = _loss(model, [rows.correcting() for _ in range(corrections)], rows.tokenizer)
        torch.autograd.backward(correcting * settings.correcting)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == settings.steps:
            say(f"step {step} of {settings.steps}: loss {writing:.3f} writing, {correcting:.3f} correcting")
    return model.eval()


def _optimizers(model: LlamaForCausalLM, settings: Training) -> list[torch.optim.Optimizer]:
    if not hasattr(torch.optim, "Muon"):
        raise UserError(f"the miniature's base is trained with torch.optim.Muon, which torch {torch.__version__} lacks")
    layers = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if all(weight is not matrix for matrix in layers)]
    return [
        torch.optim.Muon(layers, lr=settings.matrix_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _schedule(step: int, steps: int) -> float:
    """Return the factor of the rates: it rises over 40 steps, stays until the middle and falls to 0.03."""
    return min(1.0, step / 40) * max(0.03, min(1.0, 2 * (steps - step) / steps))


def _loss(model: LlamaForCausalLM, rows: list[Row], tokenizer: ChatTokenizer) -> Tensor:
    """Return the mean cross-entropy of the answers' tokens, in nats."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.full((len(rows), width), tokenizer.pad_token_id)
    targets = torch.full((len(rows), width), -1)
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[i, :end] = torch.tensor(prompt + answer)
        targets[i, len(prompt) : end] = torch.tensor(answer)
    # Padded at the right, so that causal attention needs no mask.
    hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    answered = targets[:, 1:] >= 0
    return F.cross_entropy(model.lm_head(hidden[answered]), targets[:, 1:][answered])
