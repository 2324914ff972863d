"""Generation with vLLM, in this process. The only package that imports vllm, and only once an engine is made.

generator.py the engine · weights.py the policy's weights, taken over from memory · memory.py how one engine of several
sleeps · worker.py vLLM's worker with that memory · process.py what vLLM does to its process, undone
"""

from refinerl.engines.vllm.generator import VllmGenerator

__all__ = ["VllmGenerator"]
