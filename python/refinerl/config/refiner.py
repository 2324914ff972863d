"""The section `refiner`."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from refinerl.config.conditions import CHOSEN, REFINES, REWRITES, SERVED
from refinerl.contracts.options import (
    Count,
    CountOrZero,
    ModelPath,
    NonNegative,
    Positive,
    Reads,
    Section,
    TemplatePath,
    When,
    derived,
)


class RefinerConfig(Section):
    """Generation of refinements ỹ: the model that writes them, and sampling."""

    read_when = Reads(
        {
            **dict.fromkeys(("source", "model", "url", "chat_template", "api_key_env", "samples"), REFINES),
            **dict.fromkeys(("temperature", "max_tokens", "template"), REWRITES),
            "drafts": When(
                "a constraint whose refiner rewrites responses, such as constraint.name=dynamic, and whose engine can "
                "verify drafts: no server, and with engines.generator=vllm a greedy refiner with an engine of its own",
                lambda own, run: run.drafts > 0 or not own.drafts,
            ),
            **dict.fromkeys(("where", "budget"), CHOSEN),
            **dict.fromkeys(("timeout", "retries", "concurrency", "max_failures"), SERVED),
            **dict.fromkeys(
                ("probe_every", "probe_accept"),
                When(
                    "refiner.probe=true and a constraint that does not measure the refiner itself",
                    lambda own, run: run.probing,
                ),
            ),
        }
    )

    source: Literal["reference", "policy", "model", "server"] = derived(
        "model with refiner.model, server with refiner.url, else reference"
    )
    """Model that refines: the frozen reference (as in the paper), the current policy, another model in this process, or
    a model behind an OpenAI-compatible server, such as vLLM's."""
    model: ModelPath | None = None
    """source=model: hub id or folder; its tokenizer may differ. source=server: name of the served model; None: the
    first one that the server lists."""
    chat_template: TemplatePath | None = None
    """source=model: Jinja template, as text or as a file. None: the tokenizer's own."""
    samples: Count = 1
    """Refinements that are sampled per rollout; the best one is kept. refiner/tokens counts all of them."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    max_tokens: Count = derived("generation.max_tokens")
    """Maximum tokens of a refinement."""
    drafts: Annotated[int, Field(ge=0, le=128)] = 32
    """Most tokens of y that the refiner verifies at once, instead of writing the copy of y token by token; refinements
    stay the same. 0: off."""
    template: TemplatePath | None = None
    """Prompt template: a file, or a name in tasks/prompts. None: the task's own."""
    where: Literal["all", "unsolved", "beyond"] = "all"
    """Rollouts to refine: all that can be improved (as in the paper); those in groups without a response of the
    highest reward; or those that no other response to the prompt surpasses."""
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Maximum share of the rollouts that are refined. Groups without a training signal come first."""
    probe: bool = False
    """Measure the refiner in a run of any constraint: it refines and scores as for dynamic, and teaches nothing."""
    probe_every: Count = 1
    """probe: steps between probes, which bounds their price. The first step has one."""
    probe_accept: Literal["better", "all", "perfect"] = "better"
    """probe: the filter, as constraint.accept of dynamic: refiner/ce is over the refinements that it accepts."""
    url: str | None = None
    """source=server: base URL with the API's version, such as http://localhost:8000/v1."""
    api_key_env: str | None = None
    """source=server: environment variable that holds the API key. None: no key."""
    timeout: Positive = 120.0
    """source=server: time limit of a request, in seconds."""
    retries: CountOrZero = 2
    """source=server: retries of a failed request. After these the rollout is not refined."""
    concurrency: Count = 16
    """source=server: maximum number of concurrent requests per rank."""
    max_failures: Count = 16
    """source=server: stop the run after this many failed requests in a row."""

    @model_validator(mode="after")
    def _who(self) -> RefinerConfig:
        if "source" not in self.model_fields_set or self.source is None:
            self.source = "server" if self.url else "model" if self.model else "reference"
        if self.source == "model" and self.model is None:
            raise ValueError("refiner.model must be given for refiner.source=model: a hub id or a folder")
        if self.source == "server" and self.url is None:
            raise ValueError("refiner.url must be given for refiner.source=server, such as http://localhost:8000/v1")
        if self.source != "server" and self.url is not None:
            raise ValueError(
                f"refiner.url must be left out for refiner.source={self.source}: only source=server uses it"
            )
        if self.source in ("reference", "policy") and self.model is not None:
            raise ValueError(
                f"refiner.model must be left out for refiner.source={self.source}: use source=model for another model"
            )
        if self.url is not None:
            _check_url(self.url)
        if self.source != "model" and self.chat_template is not None:
            raise ValueError(
                f"refiner.chat_template must be left out for refiner.source={self.source}: only source=model uses it"
            )
        if self.source != "server" and self.api_key_env is not None:
            raise ValueError(
                f"refiner.api_key_env must be left out for refiner.source={self.source}: only source=server uses it"
            )
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                "refiner.temperature must be above 0 for refiner.samples above 1, such as 0.7: "
                "greedy samples are all the same"
            )
        return self


def _check_url(url: str) -> None:
    """Refuse what is no base URL of a server.

    Raises:
        ValueError: it is not, or it contains a password.
    """
    try:
        place = urlsplit(url)
        whole = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:  # brackets that do not match, or a port that is no number from 0 to 65535
        whole = False
    if whole and "@" in place.netloc:
        raise ValueError(
            "refiner.url must not contain a user or a password, which would be written to config.yaml: put the key "
            "into an environment variable and name the variable in refiner.api_key_env"
        )
    if whole and place.path.rstrip("/").endswith("/completions"):
        base = url[: url.index("/completions")].removesuffix("/chat")
        raise ValueError(f"refiner.url must be the base URL of the server, such as {base}, got {url!r}")
    if not whole or place.query or place.fragment or not url.isprintable() or " " in url:
        raise ValueError(f"refiner.url must be a URL such as http://localhost:8000/v1, got {url!r}")
