"""Model families other than Llama, tiny and random: generation and training see what the plain model sees."""

from __future__ import annotations

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel

from families import FAMILIES, build
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.errors import UserError
from refinerl.records import Sampling
from tiny import make_rows, tiny_tokenizer


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param).eval()


def test_recurrent_layers_are_refused() -> None:
    config = MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=1, state_size=4)
    with pytest.raises(UserError, match=r"'mamba' cannot generate in this process: .*linear_attention"):
        TransformersGenerator(MambaForCausalLM(config), ChatTokenizer(tiny_tokenizer()))


def test_sampled_logprobs_are_the_models_own(model: PreTrainedModel) -> None:
    tokenizer = ChatTokenizer(tiny_tokenizer())
    prompts = [tokenizer.encode(text) for text in ("a", "hello there", "x" * 30)]
    generator = TransformersGenerator(model, tokenizer)
    request = Sampling(max_tokens=40, n=4, seeds=[[4 * i + j for j in range(4)] for i in range(3)])
    groups = generator.generate(prompts, request)
    rows = make_rows([p for p in prompts for _ in range(4)], [c.token_ids for g in groups for c in g])
    with torch.no_grad():
        expected = PolicyNetwork(model)(rows).logprobs
    for row, completion in enumerate(c for g in groups for c in g):
        n = len(completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected[row, :n], atol=2e-4, rtol=0)
        ids = torch.tensor([[*prompts[row // 4], *completion.token_ids]])
        with torch.no_grad():
            plain = model(ids).logits[0, -n - 1 : -1].log_softmax(-1).gather(1, ids[0, -n:, None])[:, 0]
        torch.testing.assert_close(expected[row, :n], plain, atol=2e-4, rtol=0)
