"""compute-sanitizer over the kernels: each of them on rows of a few shapes and alignments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from gpu_check.site import Fact, Site, SkipError

SECONDS = 100
LENGTHS = (1, 31, 517, 4099)


def run(site: Site, tool: str) -> Iterator[Fact]:
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise SkipError("compute-sanitizer is not on the PATH")
    # Each tensor an allocation of its own, so that a byte beyond its end is seen.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # What PyTorch asks of the driver and is refused is none of ours.
    options = ["--tool", tool, "--error-exitcode", "9", *(["--report-api-errors", "no"] if tool == "memcheck" else [])]
    command = [program, *options, sys.executable, "-m", "gpu_check.sanitizer"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, env=environment
    )
    print(done.stdout)
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY.*", done.stdout)
    fact: Fact = {"tool": tool, "status": done.returncode, "summary": summary}
    if done.returncode or not summary or "launched" not in done.stdout:
        fact["wrong"] = f"status {done.returncode}: {done.stdout[:600]}"
    yield fact


def launch_all() -> int:
    """Every kernel on small rows; returns how many launches there were."""
    import torch

    from refinerl.kernels import cuda

    epilogue, launches = cuda.Epilogue(), 0
    for length in LENGTHS:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for start in (0, 3):
                wide = torch.randn(5, length + 8).to(dtype).cuda()
                logits = wide[:, start : start + length]
                targets = torch.tensor([0, length - 1, -100, 0, length // 2]).cuda()
                weights, tilts = torch.rand(5).cuda(), torch.rand(5).cuda()
                epilogue.statistics(logits, targets, 1.25)
                epilogue.fused(logits, targets, weights, tilts, 1.25)
                launches += 2
    # A row that does not fit into a block's shared memory.
    logits, targets = torch.randn(2, 60_001).cuda(), torch.tensor([5, 60_000]).cuda()
    epilogue.fused(logits, targets, torch.ones(2).cuda(), None, 1.0)
    weights = torch.rand(3000).where(torch.rand(3000) < 0.4, 0).cuda()
    cuda.kept_rows(weights)
    torch.cuda.synchronize()
    return launches + 2


if __name__ == "__main__":
    print(f"launched {launch_all()} kernels")
