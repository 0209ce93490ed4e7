"""Cross-entropy (empirical risk minimisation), the baseline of every table. Paper: none.

loss = mean_b -log softmax(s_b)[y_b]
"""

from ltpipe.config.spec import Spec
from ltpipe.interface import method


class Config(Spec):
    """No options."""


class Method(method.Method):
    """Every hook at its default."""
