"""An early Ctrl-C is one line; the command that installs a missing package works where refinerl is not on PyPI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from refinerl.errors import RELEASES, closest, pip_install, similar

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "python" / "refinerl").rglob("*.py"))
EXTRAS = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]", 1)[1].split("\n[", 1)[0]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_releases_are_those_of_the_extras():
    """`dev` and `docs` are no packages of a run, and `gpu` combines others."""
    listed = dict(re.findall(r"^(\w+) = (\[[^\n]*\])$", EXTRAS, re.MULTILINE))
    asked = [text for name, text in listed.items() if name not in ("gpu", "docs")]
    assert dict(re.findall(r'"([\w-]+)([<>=][^";]*)', " ".join(asked))) == RELEASES


def test_a_command_quotes_ranges():
    assert pip_install("jinja2", "matplotlib") == "pip install 'jinja2>=3' 'matplotlib>=3.8'"
    assert pip_install("a-package-of-no-extra") == "pip install a-package-of-no-extra"


def test_messages_name_packages_of_the_extras():
    """A literal that no extra has would be printed without its range."""
    calls = [(path, call) for path in SOURCES for call in re.findall(r"pip_install\(([^)*]*)\)", path.read_text())]
    named = {name for _, call in calls for name in re.findall(r"['\"]([\w-]+)['\"]", call)} - {"a-package-of-no-extra"}
    assert {"peft", "datasets", "jinja2", "matplotlib", "accelerate", "gguf", "deepspeed"} <= named
    assert named - set(RELEASES) <= {"pandas", "huggingface_hub"}  # which datasets and transformers bring


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("gsm8k", ["gsm8k-dapo-dynamic"]),
        ("Gsm8k", ["gsm8k-dapo-dynamic"]),
        ("apps", ["apps-dapo", "apps-ppo-none"]),  # they begin with it
        ("dapo", ["apps-dapo", "gsm8k-dapo-dynamic"]),  # they contain it, the shorter one first
        ("smolm", ["smollm"]),  # spelled like it
        ("o", []),  # in most of them
        ("", []),
        ("nowhere", []),
    ],
)
def test_names_that_begin_with_a_word_contain_it_or_are_spelled_alike_are_similar(word, expected):
    assert similar(word, ["apps-ppo-none", "gsm8k-dapo-dynamic", "smollm", "apps-dapo"]) == expected
    assert closest(word, ["nobody"]) == ""


def test_three_similar_names_are_enough():
    assert closest("step", ["a_step", "steps", "in_steps", "step_by_step"]) == "; closest: steps, step_by_step, a_step"


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_installed_from_pypi_under_our_name(path: Path):
    """Nothing is published: `pip install refinerl`, or with extras, would find nothing or a stranger's package."""
    assert re.findall(r"pip install [^\n`]*?(?<![\w/.-])refinerl(?:\[\w|\s|['\"]?$)", path.read_text(), re.M) == []


@pytest.mark.parametrize(
    ("command", "library"),
    [
        ("train demo", "torch"),
        ("evaluate miniature --benchmark humaneval+", "torch"),
        ("audition demo", "torch"),
        ("report .", "yaml"),
        ("study miniature", "yaml"),
    ],
)
def test_ctrl_c_while_libraries_are_imported_is_one_line(command: str, library: str, tmp_path: Path):
    """The import of a library takes seconds; here it is interrupted."""
    (tmp_path / f"{library}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    interruptible = "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    name, *words = command.split()
    run = f"sys.argv = {[name, *words]!r}; runpy.run_module('refinerl.{name}', run_name='__main__', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", interruptible + run], env=environment, capture_output=True, text=True)
    assert done.returncode == -2
    assert done.stderr == "interrupted before the command began\n"
