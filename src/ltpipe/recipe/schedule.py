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
# The keys that are a recipe and no part of a method: a comparison of methods wants them equal. So is the augmentation.
COMPARED = (
    "epochs",
    "batch",
    "accumulate",
    "lr",
    "warmup",
    "decay",
    "momentum",
    "nesterov",
    "weight_decay",
    "precision",
)


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
    accumulate: int = Field(
        1,
        ge=1,
        description="micro-batches of a step: the network computes batch / accumulate images at a time, for memory. "
        "Loss, step and what a method does after it are those of the whole batch; only batch norm sees the "
        "micro-batches. Costs one more forward pass of all of them but one",
    )
    save_minutes: float | None = Field(
        2.0, gt=0, description="minutes between resume points, to the end of a step; null: none by time"
    )
    save_every: int | None = Field(None, gt=0, description="steps between resume points; null: none by steps")
    resident: float = Field(
        8.0,
        ge=0,
        description="GB of pixels that may be held on the device: the training split if it fits, and the validation "
        "split if both fit; what is not held is read batch by batch",
    )
    workers: int | None = Field(
        None,
        ge=0,
        description="processes that crop whole pictures (source.pictures: packed or files); default: one for each "
        "core; 0: none beside the training",
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

    @model_validator(mode="after")
    def _batch_norm_has_two_images(self) -> "Schedule":
        if self.batch // self.accumulate < 2:
            valid = f"1 to {self.batch // 2}"
            raise ValueError(
                f"accumulate: {self.accumulate} micro-batches of batch {self.batch}; valid: {valid}, "
                "because batch norm cannot train on a single image"
            )
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

    def phases(self, run: Run, changes: Mapping[str, Any], classes: int) -> tuple[Phase, ...]:
        """Return the phases of a run under this recipe with `changes`."""
        # Two images of each class are enough to build the method and ask for its phases.
        method = run.build(Problem(np.repeat(np.arange(classes), 2), classes), run.start_from is not None)
        return method.phases(self.with_changes(changes).phase())

    def compared(self, run: Run, classes: int) -> dict[str, set[str]]:
        """Return what runs must share if their methods are compared: key -> values as text; {} if it trains nothing.

        What a method itself adds is not compared: phases of its own, and images that it shows twice.
        """
        phases = self.phases(run, run.schedule, classes)
        if not phases:
            return {}
        whole = self.with_changes(run.schedule)
        recipe = {key: {repr(getattr(whole, key))} for key in COMPARED}
        return recipe | {"augment": {repr(phase.augment) for phase in phases}, "model": {repr(run.model)}}

    def unused_keys(self, run: Run, classes: int) -> list[str]:
        """Return the keys of `run.schedule` that have no effect, because its method has phases of its own, or none."""

        def phases(changes: Mapping[str, Any]) -> tuple[Phase, ...]:
            return self.phases(run, changes, classes)

        expected = phases(run.schedule)
        differing = [key for key, value in run.schedule.items() if self.with_changes({key: value}) != self]
        if not expected:
            return differing
        # A key has no effect if the phases are the same without it.
        others = {key: {k: v for k, v in run.schedule.items() if k != key} for key in differing}
        return [key for key in differing if key in PHASE and phases(others[key]) == expected]
