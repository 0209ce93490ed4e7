"""Schedule: the parameter block of the training recipe. Importable without torch."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec, parse
from ltpipe.interface.phases import Augment, Phase
from ltpipe.interface.streams import Problem
from ltpipe.recipe.run import Run

# The keys that reach a method as a phase, and that it may ignore by having phases of its own.
PHASE = ("epochs", "lr", "warmup", "decay", "augment")


class Schedule(Spec):
    """The training recipe, with SGD as optimiser."""

    epochs: int = Field(
        gt=0,
        description="number of epochs; an epoch is a pass over the training split, unless the method draws otherwise",
    )
    batch: int = Field(gt=1, description="images of a training step; streams of a method share it or have one each")
    lr: float = Field(gt=0, description="base learning rate, which warm-up and decay multiply by a factor")
    warmup: int = Field(0, ge=0, description="epochs of linear warm-up: lr * (epoch + 1) / warmup")
    decay: Literal["cosine"] | dict[int, float] = Field(
        "cosine",
        description="cosine (to 0 over all epochs, changed once an epoch), or factors of lr by the epoch from which "
        "they hold, e.g. {160: 0.01, 180: 0.0001}",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    nesterov: bool = Field(False, description="Nesterov's momentum instead of the plain one")
    weight_decay: float = Field(
        ge=0,
        description="weight decay of all parameters, also of batch norm and biases; a method may change it for its own",
    )
    augment: Augment = Field(Augment(), description="random changes of the training images")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="number format of the forward pass; losses are computed in fp32 in both cases"
    )
    save_every: int = Field(500, gt=0, description="steps between resume points")
    resident: float = Field(
        8.0,
        ge=0,
        description="largest size in GB of a split's pixels that is held on the device; larger splits are read batch "
        "by batch",
    )
    workers: int | None = Field(
        None,
        ge=0,
        description="processes that crop whole pictures (source.pictures: packed or files); default: one for each "
        "core; 0: none beside the training. They hand batches over in shared memory (docker run --shm-size)",
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads; default: torch's. With a fixed number, results do not depend on the number of cores",
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Schedule":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self

    def phase(self) -> Phase:
        """Return the schedule as a single phase, which a method may replace by phases of its own."""
        return Phase(self.epochs, self.lr, self.warmup, self.decay, augment=self.augment)

    def with_changes(self, changes: Mapping[str, Any]) -> "Schedule":
        """Return this recipe with some keys replaced; within `augment`, only the stated keys are replaced.

        The same changes a second time have no effect. Raises Refused if a key is unknown or a value is not valid.
        """
        current = self.model_dump()
        merged = current | dict(changes)
        if isinstance(merged["augment"], Mapping):
            merged["augment"] = current["augment"] | dict(merged["augment"])
        return parse(Schedule, merged, "schedule")

    def unused_keys(self, run: Run, classes: int) -> list[str]:
        """Return the keys of `run.schedule` that have no effect, because its method has phases of its own, or none."""
        # Two images of each class are enough to build the method and ask for its phases.
        method = run.build(Problem(np.repeat(np.arange(classes), 2), classes), run.start_from is not None)

        def phases(changes: Mapping[str, Any]) -> tuple[Phase, ...]:
            return method.phases(self.with_changes(changes).phase())

        expected = phases(run.schedule)
        differing = [key for key, value in run.schedule.items() if self.with_changes({key: value}) != self]
        if not expected:
            return differing
        # A key has no effect if the phases are the same without it.
        others = {key: {k: v for k, v in run.schedule.items() if k != key} for key in differing}
        return [key for key in differing if key in PHASE and phases(others[key]) == expected]
