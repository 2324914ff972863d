"""The references of docs/citing.md, in BibTeX."""

from __future__ import annotations

from refinerl import __version__

ARXIV = "2603.18088"
PAPER = """\
@misc{ma2026refiner,
  title         = {Enhancing Reinforcement Learning Fine-Tuning with an Online Refiner},
  author        = {Ma, Hao and Pu, Zhiqiang and Liu, Yang and Ai, Xiaolin},
  year          = {2026},
  eprint        = {2603.18088},
  archivePrefix = {arXiv},
  url           = {https://arxiv.org/abs/2603.18088}
}"""
SOFTWARE = f"""\
@software{{refinerl,
  title   = {{refinerl: reinforcement-learning fine-tuning of language models under a dynamic constraint}},
  author  = {{{{The refinerl maintainers}}}},
  version = {{{__version__}}},
  year    = {{2026}},
  license = {{Apache-2.0}}
}}"""
