"""Who may import what: the house's rules, read off the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import refinerl

ROOT = Path(refinerl.__file__).parent

BASE = {"records", "objective", "config", "errors", "contracts"}
FACES = {"alignment", "sandbox", "kernels"}
COMMANDS = {
    "__main__",
    "arguments",
    "audition",
    "doctor",
    "evaluate",
    "export",
    "generators",
    "judge",
    "launch",
    "page",
    "placement",
    "plan",
    "plan_memory",
    "report",
    "rewards",
    "summary",
    "train",
    "trainers",
    "trial",
    "wiring",
}
CONFIG_READERS = COMMANDS | {"recipe"}
HEAVY = {"vllm": "engines.vllm", "deepspeed": "engines.deepspeed", "peft": "engines.lora"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with what it takes from packages of ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): imports(path)
    for path in sorted(ROOT.rglob("*.py"))
}


def ours(module: str) -> set[str]:
    """Modules of the package that a module imports, such as `engines.torch`."""
    names = {name.removeprefix("refinerl.") for name in MODULES[module] if name.startswith("refinerl.")}
    return {name for name in names if name in MODULES} - {module}


def room(module: str) -> str:
    return module.split(".")[0]


def test_the_rules_see_the_package():
    assert {"train", "objective", "engines.torch", "constraints.dynamic"} <= MODULES.keys()
    assert "records" in ours("contracts")


@pytest.mark.parametrize("module", ["records", "objective", "config", "errors"])
def test_the_ground_floor_imports_nothing_of_ours(module):
    assert ours(module) == set()


def test_contracts_import_records():
    assert ours("contracts") <= {"records", "objective"}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_faces_import_the_core(module):
    if "refinerl._core" in MODULES[module]:
        assert room(module) in FACES


@pytest.mark.parametrize("module", MODULES)
def test_heavy_dependencies_have_one_door(module):
    for package, door in HEAVY.items():
        if any(name.split(".")[0] == package for name in MODULES[module]):
            assert module == door or module.startswith(f"{door}.")


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_the_ground_floor_the_faces_and_themselves(module):
    if room(module) in COMMANDS or room(module) in ("constraints", "recipe"):
        return
    neighbours = {
        "sandbox": {"judge"},
        "metrics": {"rollout"},
        "update": {"batch"},
        "engines": {"tokenization"},
        "benchmarks": {"tasks"},
        "telemetry": {"memory"},
    }.get(room(module), set())
    allowed = BASE - {"config"} | FACES | {room(module), "alignment_naive"} | neighbours
    assert {room(name) for name in ours(module)} <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_algorithms_and_constraints_never_meet(module):
    if room(module) == "constraints":
        assert {room(name) for name in ours(module)} <= BASE - {"config"} | FACES | {"refiner", "batch", "constraints"}
    if room(module) == "algorithms":
        assert "constraints" not in {room(name) for name in ours(module)}


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_the_commands(module):
    if room(module) not in COMMANDS:
        lazily = {"judge"} if module == "sandbox" else set()
        assert not {room(name) for name in ours(module)} & COMMANDS - lazily


@pytest.mark.parametrize("module", MODULES)
def test_only_commands_read_the_config(module):
    if module not in CONFIG_READERS:
        assert "config" not in ours(module)


def test_importing_the_package_imports_nothing_heavy():
    assert not {name.split(".")[0] for name in MODULES["__init__"] or MODULES[""]} & {"torch", "transformers"}
