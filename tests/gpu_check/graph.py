"""A launch of the epilogue in a CUDA graph gives what a plain one gives, though it be the process's first."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_check.site import Fact, Site


def run(site: Site) -> Iterator[Fact]:
    import torch

    from refinerl.kernels import cuda

    if reason := cuda.why_not(torch.cuda.current_device()):  # loads the kernels
        yield {"wrong": reason}
        return
    noise = torch.Generator("cuda").manual_seed(0)
    logits = torch.randn(64, 151_936, generator=noise, device="cuda")
    targets = torch.randint(0, 151_936, (64,), generator=noise, device="cuda")
    weights = torch.rand(64, generator=noise, device="cuda")
    epilogue = cuda.Epilogue()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        of_statistics = epilogue.statistics(logits, targets, 1.25)
        of_fused = epilogue.fused(logits, targets, weights, None, 1.25)
    for replay in (1, 2):
        logits.normal_(generator=noise)
        plain = logits.clone()
        captured.replay()
        torch.cuda.synchronize()
        wanted = epilogue.statistics(plain, targets, 1.25), epilogue.fused(plain, targets, weights, None, 1.25)
        same = [torch.equal(a, b) for a, b in zip((*of_statistics, *of_fused), (*wanted[0], *wanted[1]), strict=True)]
        fact: Fact = {"replay": replay, "results_equal": same, "gradient_equal": torch.equal(logits, plain)}
        if not (all(same) and fact["gradient_equal"]):
            fact["wrong"] = f"replay {replay} differs from a plain launch"
        yield fact
