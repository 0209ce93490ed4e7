"""Schedule: the parameter block of the recipe; importable without torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ltpipe.methods.base import Augment, Phase
from ltpipe.specs import Spec, parse


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
        augment = {"augment": whole["augment"] | changes["augment"]} if "augment" in changes else {}
        return parse(Schedule, whole | dict(changes) | augment, "schedule")
