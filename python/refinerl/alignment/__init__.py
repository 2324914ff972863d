"""Exact minimal alignment of token sequences.

face    the typed interface to the Rust aligner
naive   its twin in NumPy
"""

from refinerl.alignment.face import (
    Filtered,
    align,
    charge,
    filter_refinements,
    retokenize,
)

__all__ = [
    "Filtered",
    "align",
    "charge",
    "filter_refinements",
    "retokenize",
]
