"""Learning-rate rules: each file is one rule, and the file's name is its name in `schedule.decay`. Each has

Config(...).factor(at, of, epoch)     the options, a `Rate`, and the factor of `lr` at a position of training

and computes the factor by a pure function.

Nothing here imports torch. A method that has phases of its own imports the rule that it names in them, so that the
rule's code is part of the method's.
"""

from typing import ClassVar

from ltpipe.config.spec import Spec


class Rate(Spec):
    """The options of a rule.

    own_warmup: the rule begins with a warm-up of its own, so `schedule.warmup` is refused beside it. by_step: the rule
    is refused by the epoch: its last position, with hardly any rate, would be a whole epoch.
    """

    own_warmup: ClassVar[bool] = False
    by_step: ClassVar[bool] = False

    def factor(self, at: int, of: int, epoch: int) -> float:
        """Return the factor of lr at position `at` (from 0) of `of`, in epochs or in steps of training.

        epoch: positions of an epoch, for options that are stated in epochs; 1 if positions are epochs.
        """
        raise NotImplementedError
