"""The proposer of guesses in vLLM's worker, with a stand-in for its model runner; test_vllm.py has the real one."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from refinerl.engines.guesses import Draft
from refinerl.engines.vllm import proposer
from refinerl.engines.vllm.proposer import DraftProposer

CONFIG = SimpleNamespace(
    speculative_config=SimpleNamespace(num_speculative_tokens=8),
    model_config=SimpleNamespace(max_model_len=64, get_vocab_size=lambda: 100),
    device_config=SimpleNamespace(device_type="cpu"),
)


class Runner:
    """The attributes of vLLM's model runner that the proposer reads."""

    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}
        self.input_batch = SimpleNamespace(req_ids=[])

    def hold(self, **requests: tuple[list[int], list[int]]) -> None:
        """Hold these requests alone, by name: the prompt, and the tokens that are written."""
        self.requests = {
            name: SimpleNamespace(
                prompt_token_ids=prompt, output_token_ids=written, sampling_params=SimpleNamespace(max_tokens=20)
            )
            for name, (prompt, written) in requests.items()
        }
        self.input_batch.req_ids = list(requests)


def test_a_draft_is_indexed_while_its_request_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """All drafts of a step were indexed before the first pass, and kept until the next step."""
    made: list[weakref.ref[Draft]] = []

    class Counted(Draft):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(proposer, "Draft", Counted)
    runner, asked = Runner(), DraftProposer(CONFIG)
    asked.expect({(1, 2): [5, 6, 7], (3,): [8, 9, 10]}, runner)
    assert not made
    runner.hold(a=([1, 2], [5]))
    assert asked.propose([[5]], None, None) == [[6, 7]]
    assert len(made) == 1
    runner.hold(b=([3], [8]))
    assert asked.propose([[8]], None, None) == [[9, 10]]
    gc.collect()
    assert [draft() is None for draft in made] == [True, False]
