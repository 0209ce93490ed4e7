"""RandAugment (Cubuk et al., NeurIPS 2020) around any base: two random operations an image at each step.

The operations and magnitudes are the augmentation's (`randaug` of the schedule's `augment` block); this method switches
it on for one run of a benchmark, in every phase of the base.
"""

from typing import Any

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase


class Config(Spec):
    """base: a method's name, or {method, options}."""

    base: str | dict[str, Any] = "ce"


class Method(method.Around):
    """The base's phases with other augmentation."""

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return super().phases(schedule.augmented(randaug=True))
