"""RandAugment (Cubuk et al., NeurIPS 2020) around another method: two random operations for each image at each step.

The base method trains as usual, but every image is changed by two random operations (shear, rotation, colour, ...) in
all phases of the base. This sets `randaug: true` in the augmentation of one run; `randaug` in the benchmark's
`schedule: augment` would do so for all of its runs.

Formula:
    x' = o_2(o_1(x))                                  o_1, o_2: each one of 15 operations at a level of 1..9, drawn
                                                      equally often, and applied with probability 1/2

Use:
    randaug: {base: ce}
    randaug_ride: {base: ride}

Suggested values: the defaults; operations and levels are fixed, as in the code of Tang et al., 2022 (ImageNet-GLT).
With IFL, RandAugment is the base: `method: ifl` with `base: randaug`.

Where the authors' code differs: the authors' own code was not compared. The code of Tang et al., 2022 uses the package
randaugment 1.0.2; from it, shears here take the nearest pixel instead of a bicubic one, rotations have a random sign,
and everything that an image loses is grey.

Attribution: Cubuk et al., NeurIPS 2020. The code here is written from the description of the operations.
"""

from typing import Any

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase


class Config(Spec):
    """The method that trains on the changed images."""

    base: str | dict[str, Any] = Field("ce", description="name of a method, or {method, options}")


class Method(method.Around):
    """The base with RandAugment in each of its phases."""

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return super().phases(schedule.augmented(randaug=True))
