"""RandAugment (Cubuk et al., NeurIPS 2020) around any base: two random operations an image at each step.

The operations and magnitudes are the augmentation's (`randaug` of the schedule's `augment` block); this method switches
it on for one run of a benchmark, in every phase of the base.
"""

from typing import Any

from ltpipe.methods import base
from ltpipe.specs import Spec


class Config(Spec):
    """base: a method's name, or {method, options}."""

    base: str | dict[str, Any] = "ce"


class Method(base.Around):
    """The base's phases with other augmentation."""

    def phases(self, whole: base.Phase) -> tuple[base.Phase, ...]:
        return super().phases(whole.augmented(randaug=True))
