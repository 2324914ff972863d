"""Generation with vLLM, in this process. The only package that imports vllm, and only once an engine is made.

generator.py the engine · arguments.py vLLM's arguments for it · proposer.py guesses from drafts · weights.py the
policy's weights, loaded from memory · memory.py the memory of one engine of several, and its sleep · worker.py vLLM's
worker with that memory · process.py vLLM's import, and cleaning up after it
"""

from refinerl.engines.vllm.generator import VllmGenerator

__all__ = ["VllmGenerator"]
