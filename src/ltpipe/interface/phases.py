"""When a method trains what: times in a schedule, augmentation, and phases with one optimiser each."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.rates import Rate, cosine

# A time in the schedule: an epoch (an integer, from 0) or a fraction of all epochs (a float in 0..1).
When = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Hue = Annotated[float, Field(ge=0, le=0.5)]


def at(when: int | float, epochs: int) -> int:
    """Return the epoch (from 0) that `when` means in a schedule of `epochs` epochs."""
    return when if isinstance(when, int) else round(when * epochs)


@dataclass
class Clock:
    """The position in training. The loop sets it; a method and its base share one clock.

    phase: index into the result of `phases`. epoch: counted over all phases, from 0; during `finish` it equals
    `epochs`, the sum over all phases.
    """

    phase: int = 0
    epoch: int = 0
    epochs: int = 0

    def passed(self, when: int | float) -> bool:
        """Tell whether the current epoch is `when` or later."""
        return self.epoch >= at(when, self.epochs)


class Augment(Spec):
    """Random changes of each image at each step, applied in the order of these fields.

    Without `crop` and `resized_crop`, images larger than the network's input are cut to their centre.
    """

    crop: int = Field(0, ge=0, description="pixels of zero padding before a random crop to the network's size")
    resized_crop: tuple[Share, Share] | None = Field(
        None, description="smallest and largest share of the area of a random box, then resized (Szegedy et al., 2015)"
    )
    flip: bool = Field(False, description="horizontal flip with probability 1/2")
    colour_jitter: tuple[Strength, Strength, Strength] | tuple[Strength, Strength, Strength, Hue] | None = Field(
        None, description="torchvision's ColorJitter: brightness, contrast, saturation and optionally hue"
    )
    rotate: float = Field(
        0.0,
        ge=0,
        le=180,
        description="largest angle of a random rotation to either side, in degrees; nearest pixel, black corners",
    )
    autoaugment: bool = Field(False, description="the CIFAR-10 policy (Cubuk et al., CVPR 2019)")
    randaug: bool = Field(False, description="two random operations for each image (Xie et al., 2020)")
    cutout: int = Field(0, ge=0, description="side of a black square, in pixels; 0: none")

    @model_validator(mode="after")
    def _one_crop(self) -> "Augment":
        if self.resized_crop and self.crop:
            raise ValueError(f"crop: {self.crop} and resized_crop exclude each other")
        if self.resized_crop and self.resized_crop[0] > self.resized_crop[1]:
            raise ValueError(f"resized_crop: smallest share before largest, not {list(self.resized_crop)}")
        if self.colour_jitter and not self.resized_crop:
            raise ValueError("colour_jitter changes random boxes of whole pictures: it needs resized_crop")
        return self

    def after_crop(self) -> "Augment":
        """Return what is left to do with images that are cropped, flipped and jittered already."""
        return self.model_copy(update={"resized_crop": None, "flip": False, "colour_jitter": None})


@dataclass(frozen=True)
class Phase:
    """A part of training with its own optimiser.

    decay: the rule of a module of ltpipe.rates, its Config, over the whole phase; lr_every: whether lr moves once an
    epoch or at every step. trainable: any of backbone, head, own; the other parts are frozen and in eval mode.
    drift: frozen parts stay in training mode, so their batch-norm statistics still change. weight_decay: of this phase;
    None takes the schedule's.
    Raises ValueError for any other decay, because the loop would not follow it.
    """

    epochs: int
    lr: float
    warmup: int | float = 0
    decay: Rate = field(default_factory=cosine.Config)
    lr_every: Literal["epoch", "step"] = "epoch"
    trainable: tuple[str, ...] = ("backbone", "head", "own")
    drift: bool = False
    augment: Augment = field(default_factory=Augment)
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.decay, Rate):
            raise ValueError(f"decay: {self.decay!r}; valid: Config(...) of a module of ltpipe.rates, e.g. constant")

    def augmented(self, **changes: Any) -> "Phase":
        """Return the same phase with changed augmentation, e.g. randaug=True."""
        return replace(self, augment=self.augment.model_copy(update=changes))


class Retraining(Spec):
    """A second stage on a finished run: cosine decay from lr to 0 with class-aware sampling."""

    epochs: int = Field(10, gt=0, description="epochs of the second stage")
    lr: float = Field(0.1, gt=0, description="learning rate at its start; cosine decay to 0")
    per_class: int = Field(4, ge=1, description="images of each drawn class")
    drift: bool = Field(
        False, description="batch-norm statistics of the frozen backbone follow the new stream, as in the authors' code"
    )

    def phase(self, schedule: Phase, trainable: str) -> Phase:
        """Return the only phase of the stage, with the benchmark's augmentation."""
        return Phase(self.epochs, self.lr, trainable=(trainable,), drift=self.drift, augment=schedule.augment)
