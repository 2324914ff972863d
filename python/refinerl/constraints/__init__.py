"""Constraints on the policy: one file each, with equation, options and class.

base      the defaults of a constraint
none      the paper's “w/o Constraint”
static    KL to the reference
dynamic   the online refiner
peer      a control: the best response to the same prompt in the place of the refiner's
fresh     a control: new answers of the reference in the place of the refiner's
sum       several at once
probe     the refiner beside other constraints, measured only
"""

from refinerl.constraints.base import Constraint
from refinerl.constraints.probe import Probed
from refinerl.constraints.sum import Sum

__all__ = ["Constraint", "Probed", "Sum"]
