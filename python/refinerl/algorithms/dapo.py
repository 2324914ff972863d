"""DAPO (Yu et al., 2025): group advantages, clip-higher, dynamic sampling, token-level loss, overlong shaping."""

from __future__ import annotations

from refinerl.algorithms.base import GroupAlgorithm
from refinerl.contracts.options import Positive


class DAPO(GroupAlgorithm):
    """−min(ρ_t·A_i, clip(ρ_t, 1 − ε_low, 1 + ε_high)·A_i), ε_high > ε_low, one mean over all tokens.

    docs/equations.md, “Exact forms”: group advantage, dynamic sampling, overlong shaping, where a penalty enters.
    """

    class Options(GroupAlgorithm.Options):
        """DAPO's options; `clip_high` is the paper's."""

        clip_high: Positive = 0.3
        """Upper clip of the ratio, at 1 + clip_high."""
