"""Schedule: the parameter block of the training recipe. Importable without torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ltpipe.config.spec import MenuItem, Refused, Spec, parse
from ltpipe.interface.method import Method
from ltpipe.interface.phases import Augment, Phase
from ltpipe.interface.streams import Problem
from ltpipe.rates import Rate
from ltpipe.recipe import choices
from ltpipe.recipe.run import Run

# The keys that reach a method as a phase, by the phase's field, and that it may ignore by having phases of its own.
PHASE = {key: key for key in ("epochs", "lr", "warmup", "decay", "lr_every", "augment")} | {"decay_options": "decay"}
# The keys that only some optimisers follow; with the others they are null.
FOLLOWED = ("momentum", "nesterov")
# The keys that are a recipe and no part of a method: a comparison of methods wants them equal. So is the augmentation.
COMPARED = (
    "epochs",
    "batch",
    "accumulate",
    "lr",
    "warmup",
    "decay",
    "decay_options",
    "lr_every",
    "optimiser",
    "optimiser_options",
    "momentum",
    "nesterov",
    "weight_decay",
    "decay_norms_and_biases",
    "layer_decay",
    "parts",
    "clip_norm",
    "ema",
    "label_smoothing",
    "precision",
)


PartName = Literal["backbone", "head", "own"]


class Part(Spec):
    """How a part of the network is trained otherwise than the rest."""

    lr_scale: float = Field(1.0, gt=0, description="factor of the learning rate")
    weight_decay: float | None = Field(None, ge=0, description="instead of the schedule's; null: the schedule's")


class Schedule(Spec):
    """The training recipe."""

    chooses: ClassVar[tuple[type[MenuItem], ...]] = (choices.RateChoice, choices.OptimiserChoice)

    epochs: int = Field(
        gt=0,
        description="number of epochs; an epoch is a pass over the training split, unless the method draws otherwise",
    )
    batch: int = Field(gt=1, description="images of a training step; streams of a method share it or have one each")
    lr: float = Field(gt=0, description="base learning rate, which warm-up and decay multiply by a factor")
    warmup: int | Annotated[float, Field(allow_inf_nan=False)] = Field(
        0,
        ge=0,
        description="epochs of linear warm-up: lr * (epoch + 1) / warmup; a share of an epoch with lr_every: step",
    )
    decay: str | dict[int, float] = Field(
        "cosine",
        description="how lr goes on, over all epochs: a rule of ltpipe.rates, or factors of lr by the epoch from which "
        "they hold, e.g. {160: 0.01, 180: 0.0001}",
    )
    decay_options: dict[str, Any] = Field(default_factory=dict, description="options of the rule")
    lr_every: Literal["epoch", "step"] = Field(
        "epoch",
        description="when lr moves: once an epoch, or at every step; lengths are stated in epochs in both cases",
    )
    optimiser: str = Field("sgd", description="a module of ltpipe.optimisers")
    optimiser_options: dict[str, Any] = Field(default_factory=dict, description="options of the optimiser")
    momentum: float | None = Field(
        None, ge=0, lt=1, description="momentum of SGD, 0.9 if it is not stated; null with optimisers that have none"
    )
    nesterov: bool | None = Field(
        None, description="Nesterov's momentum instead of the plain one, false if it is not stated; null likewise"
    )
    weight_decay: float = Field(
        ge=0,
        description="weight decay of all parameters, also of norms and biases; a method may change it for its own",
    )
    decay_norms_and_biases: bool = Field(True, description="weight decay also of norm layers and biases")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="layer-wise decay of the learning rate: layer i of the backbone's L layers, from 1, has "
        "lr * layer_decay^(L + 1 - i), the head lr",
    )
    parts: dict[PartName, Part] = Field(
        default_factory=dict,
        description="learning rate and weight decay of a part of its own; own: parameters that the method adds",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of the gradient of all parameters together; null: no limit"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share that each step keeps of an average of the weights and of batch norm's statistics. The "
        "average is what is validated and exported. Step t of training keeps (1 + t) / (10 + t), if that is less",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the label that all classes have together (Szegedy et al., 2016); only with methods whose "
        "loss is the mean cross-entropy",
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

    @model_validator(mode="before")
    @classmethod
    def _fill_followed(cls, value: Any) -> Any:
        """Fill in the defaults of the keys that the optimiser follows."""
        if not isinstance(value, Mapping):
            return value
        known = {key: default for key, default in _followed(value).items() if value.get(key) is None}
        return {**value, **known}

    @model_validator(mode="after")
    def _choices_fit(self) -> "Schedule":
        follows, rate = choices.options(self.chosen_optimiser()).follows(), self.rate()
        if wrong := [key for key in FOLLOWED if getattr(self, key) is not None and key not in follows]:
            said = ", ".join(f"{key}: {getattr(self, key)}" for key in wrong)
            raise ValueError(f"{said}: optimiser {self.optimiser} does not follow it; leave it out, or write null")
        if self.warmup and rate.own_warmup:
            raise ValueError(f"warmup: {self.warmup}: {self.decay} has a warm-up of its own; write warmup: 0")
        if self.lr_every == "epoch" and rate.by_step:
            raise ValueError(f"decay: {self.decay} would train the last epoch at almost no rate; write lr_every: step")
        if self.lr_every == "epoch" and self.warmup != int(self.warmup):
            raise ValueError(f"warmup: {self.warmup} is no whole number of epochs; that needs lr_every: step")
        return self

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
        return Phase(self.epochs, self.lr, self.warmup, self.rate(), self.lr_every, augment=self.augment)

    def rate(self) -> Rate:
        """Return the learning-rate rule with its options."""
        return choices.rule(choices.rate_of(self.__dict__))

    def chosen_optimiser(self) -> choices.OptimiserChoice:
        """Return the optimiser with its options."""
        return choices.optimiser_of(self.__dict__)

    def modules(self) -> frozenset[str]:
        return super().modules() | choices.rate_of(self.__dict__).modules() | self.chosen_optimiser().modules()

    def with_changes(self, changes: Mapping[str, Any]) -> "Schedule":
        """Return this recipe with some keys replaced; within `augment`, only the stated keys are replaced.

        With another optimiser, the options of the first one are dropped, and the keys that the second does not follow;
        with another decay, its options. The same changes a second time have no effect.
        Raises Refused if a key is unknown or a value is not valid.
        """
        current = self.model_dump()
        for key in ("optimiser", "decay"):
            if key in changes and changes[key] != current[key]:
                current[f"{key}_options"] = {}
        merged = current | dict(changes)
        follows = _followed(merged)
        merged |= {key: None for key in FOLLOWED if key not in follows and key not in changes}
        if isinstance(merged["augment"], Mapping):
            merged["augment"] = current["augment"] | dict(merged["augment"])
        return parse(Schedule, merged, "schedule")

    def phases(self, run: Run, changes: Mapping[str, Any], classes: int) -> tuple[Phase, ...]:
        """Return the phases of a run under this recipe with `changes`."""
        return _method(run, classes).phases(self.with_changes(changes).phase())

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
        whole, before = self.with_changes(run.schedule), self.phase()
        phase, expected = whole.phase(), self.phases(run, run.schedule, classes)
        differing = [key for key in run.schedule if getattr(whole, key) != getattr(self, key)]
        if not expected:
            return differing
        trained = {part for stage in expected for part in stage.trainable}
        unused = [f"parts.{part}" for part in whole.parts if "parts" in differing and part not in trained]
        if "layer_decay" in differing and "backbone" not in trained:
            unused.append("layer_decay")
        if "weight_decay" in differing and all(stage.weight_decay is not None for stage in expected):
            unused.append("weight_decay")
        for key, field in PHASE.items():
            # A key has no effect if the phases are the same without it.
            without = replace(phase, **{field: getattr(before, field)})
            if key in differing and _method(run, classes).phases(without) == expected:
                unused.append(key)
        return unused

    def require_method(self, run: Run, classes: int) -> None:
        """Raise Refused if the run's method cannot follow this recipe with the run's changes."""
        whole = self.with_changes(run.schedule)
        if not whole.label_smoothing:
            return
        method = _method(run, classes)
        if method.phases(whole.phase()) and not method.smooths():
            raise Refused(
                f"schedule.label_smoothing: {whole.label_smoothing}: the loss of {run.method} is not the mean "
                "cross-entropy that it smooths"
            )


def _followed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys that the optimiser named by the keys of a schedule follows, with their defaults.

    {} if there is no such optimiser, which the block refuses by itself.
    """
    named = {"optimiser": "sgd", "optimiser_options": {}} | dict(values)
    try:
        return choices.options(choices.optimiser_of(named)).follows()
    except ValidationError:
        return {}


def _method(run: Run, classes: int) -> Method:
    """Return the run's method, built on two images of each class: enough to ask it for its phases."""
    return run.build(Problem(np.repeat(np.arange(classes), 2), classes), run.start_from is not None)
