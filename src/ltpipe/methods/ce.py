"""Cross-entropy (empirical risk minimisation), the baseline of every table. Paper: none.

loss = mean_b -log softmax(s_b)[y_b]
"""

from ltpipe.methods import base
from ltpipe.specs import Spec


class Config(Spec):
    """No options."""


class Method(base.Method):
    """Every hook at its default."""
