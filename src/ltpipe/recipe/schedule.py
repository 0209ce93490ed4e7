"""Schedule: the parameter block of the recipe; importable without torch."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec, parse
from ltpipe.interface.phases import Augment, Phase
from ltpipe.interface.streams import Problem
from ltpipe.recipe.run import Run

# keys that a method's phases may take or leave
PHASE = ("epochs", "lr", "warmup", "decay", "augment")


class Schedule(Spec):
    """The recipe: SGD, one epoch is one pass over the training split. Weight decay falls on every parameter.

    decay: "cosine", or factors of lr by the epoch from which they hold, e.g. {160: 0.01, 180: 0.0001}.
    precision: of the forward pass; losses are computed in fp32 in both. save_every: steps between resume points.
    """

    epochs: int = Field(gt=0)
    batch: int = Field(gt=1)
    lr: float = Field(gt=0)
    warmup: int = Field(0, ge=0, description="epochs of linear warm-up: lr * (epoch + 1) / warmup")
    decay: Literal["cosine"] | dict[int, float] = "cosine"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(ge=0)
    augment: Augment = Augment()
    precision: Literal["fp32", "bf16"] = "fp32"
    save_every: int = Field(500, gt=0)
    resident: float = Field(
        8.0, ge=0, description="GB of a split's pixels held on the device; larger splits are read batch by batch"
    )
    threads: int | None = Field(
        None, gt=0, description="CPU threads; default: torch's. Fixed, the bits do not depend on cores"
    )

    def phase(self) -> Phase:
        """The whole schedule as one phase."""
        return Phase(self.epochs, self.lr, self.warmup, self.decay, augment=self.augment)

    def changed(self, changes: Mapping[str, Any]) -> "Schedule":
        """This recipe with some keys replaced, those of `augment` one by one; the same again changes nothing.

        Raises Refused where a key is unknown or a value impossible.
        """
        whole = self.model_dump()
        merged = whole | dict(changes)
        if isinstance(merged["augment"], Mapping):
            merged["augment"] = whole["augment"] | dict(merged["augment"])
        return parse(Schedule, merged, "schedule")

    def unused(self, run: Run, classes: int) -> list[str]:
        """Keys of the run's own recipe that change nothing, because its method has phases of its own, or none."""
        method = run.build(Problem(np.repeat(np.arange(classes), 2), classes), run.start_from is not None)

        def phases(changes: Mapping[str, Any]) -> tuple[Phase, ...]:
            return method.phases(self.changed(changes).phase())

        found = phases(run.schedule)
        differing = [key for key, value in run.schedule.items() if self.changed({key: value}) != self]
        if not found:
            return differing
        others = {key: {k: v for k, v in run.schedule.items() if k != key} for key in differing}
        return [key for key in differing if key in PHASE and phases(others[key]) == found]
