"""Cross-entropy (empirical risk minimisation), the baseline of every table. Paper: none.

Draw every training image equally often and minimise the mean cross-entropy. Nothing corrects for the class sizes, so
frequent classes dominate the loss.

Formula:
    loss = mean_b CE(s_b, y_b)                        prediction: argmax_c s_c

Use:
    ce: {}

Suggested values: the defaults; there are no options.

Where the authors' code differs: there is no authors' code. In the code of Tang et al., 2022 the linear heads have no
bias; so they have here where the benchmark's block `model` says `head_bias: false`, as imagenet_glt and mscoco_glt do.

Attribution: none, a textbook loss.
"""

from ltpipe.config.spec import Spec
from ltpipe.interface import method


class Config(Spec):
    """No options."""


class Method(method.Method):
    """Plain cross-entropy: every hook keeps its default."""
