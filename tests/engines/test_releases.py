"""Engines built on a library's internals accept the tested series alone, and say which release works."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from launching import environment, launch, needs_deepspeed, needs_vllm
from refinerl.engines.releases import DEEPSPEED, VLLM, Library
from refinerl.errors import UserError
from toy import Toy

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
BOTH = pytest.mark.parametrize("library", [VLLM, DEEPSPEED], ids=lambda library: library.name)


@pytest.mark.parametrize("release", [VLLM.tested, "0.32.7", "0.32.0+cu130"])
def test_releases_of_the_tested_series_are_accepted(release):
    VLLM.check(release)


@pytest.mark.parametrize("release", ["0.31.9", "0.33.0", "1.32.0", "0.3.2", "0.32", "0.33.0rc1.dev12+g1234"])
def test_another_release_is_refused_with_the_one_that_works(release):
    said = (
        f"engines.generator=vllm works with vLLM >=0.32,<0.33 (tested with {VLLM.tested}), and {release} is installed: "
        f"pip install 'vllm=={VLLM.tested}', or set engines.generator=transformers"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        VLLM.check(release)


@BOTH
def test_what_pip_installs_is_accepted(library: Library):
    (low, high), *_ = re.findall(rf'"{library.package}>=([\d.]+),<([\d.]+)[";]', PROJECT.read_text())
    assert library.series == f">={low},<{high}"
    library.check(f"{low}.0")
    with pytest.raises(UserError):
        library.check(f"{high}.0")


def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it():
    absent = Library("Absent", "no_such_package", "1.2.3", "engines.x=absent", "engines.x=other")
    said = "engines.x=absent asks for Absent, which is not installed: pip install 'no_such_package>=1.2,<1.3', or "
    with pytest.raises(UserError, match=re.escape(said)):
        absent.require()


def test_a_build_without_metadata_of_that_name_is_left_to_its_import():
    with pytest.raises(PackageNotFoundError):
        version("tests_of_no_distribution")
    Library("Json", "json", "9.9.9", "engines.x=json", "engines.x=other").require()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "release"),
    [pytest.param(VLLM, "0.34.1", marks=needs_vllm), pytest.param(DEEPSPEED, "0.20.0", marks=needs_deepspeed)],
    ids=["vLLM", "DeepSpeed"],
)
def test_the_command_refuses_an_untested_release_in_one_sentence(toy: Toy, tmp_path, library: Library, release: str):
    """Before a model is loaded, by the metadata that pip leaves: the import of another release may fail in any way."""
    metadata = tmp_path / f"{library.package}-{release}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library.package}\nVersion: {release}\n")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = launch(None, *toy.arguments(tmp_path / "run", library.knob), PYTHONPATH=path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {library.knob} works with {library.name} {library.series} (tested with ")
    assert f"{release} is installed: pip install '{library.package}=={library.tested}', or set " in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
