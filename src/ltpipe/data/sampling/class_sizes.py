"""Class sizes of a long tail, and a class divided by shares into integers; only arithmetic, no images."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from ltpipe.config.spec import Refused, Spec

RUN = re.compile(r"(\d+)(?:x(\d+))?")
EXAMPLES = 5


def decode_runs(value: Any) -> Any:
    """Return the integers of a run-length coded text: "500x3 497" is 500, 500, 500, 497.

    A value that is not text is returned unchanged. Raises ValueError with the words that are neither size nor run.
    """
    if not isinstance(value, str):
        return value
    runs = [(word, RUN.fullmatch(word)) for word in value.split()]
    if wrong := [word for word, run in runs if run is None]:
        raise ValueError(f"not a size, nor size x repeats as in 500x3: {', '.join(wrong[:EXAMPLES])}")
    return [int(run[1]) for _, run in runs if run for _ in range(int(run[2] or 1))]


def encode_runs(sizes: Sequence[int]) -> str:
    """Return `sizes` as the run-length coded text that `decode_runs` reads."""
    runs = [(size, len(list(same))) for size, same in groupby(sizes)]
    return " ".join(f"{size}x{repeats}" if repeats > 1 else str(size) for size, repeats in runs)


# images of class 0, 1, ...: a list, or one run-length coded text
Sizes = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(decode_runs)]


def exponential_sizes(largest: int, rho: float, classes: int) -> np.ndarray:
    """Return n_c = int(largest * (1/rho)^(c/(classes-1))), c = 0..classes-1, int64; class 0 is the largest.

    Sizes are truncated as in the generator of LDAM (Cao et al., NeurIPS 2019). As there, the smallest class can be one
    less than largest/rho, if the power falls below an integer in floating point.
    """
    if classes == 1:
        return np.array([largest], dtype=np.int64)
    return np.array([int(largest * (1 / rho) ** (c / (classes - 1.0))) for c in range(classes)], dtype=np.int64)


def step_sizes(largest: int, rho: float, classes: int) -> np.ndarray:
    """Return `largest` for the first classes // 2 and int(largest * (1/rho)) for the others, int64.

    This is the step imbalance of Cao et al. (NeurIPS 2019).
    """
    half = classes // 2
    return np.repeat(np.array([largest, int(largest * (1 / rho))], dtype=np.int64), [half, classes - half])


def pareto_sizes(largest: int, rho: float, classes: int, power: float) -> np.ndarray:
    """Return n_c = int(largest * (1 + a c)^-power), int64, where a makes the last class largest/rho.

    This is a Pareto (Lomax) law of size by rank. ImageNet-LT is said to follow a Pareto law of power 6 (Liu et al.,
    CVPR 2019), but the way its classes were drawn was not published, and this law does not give its total: take the
    published lists for ImageNet-LT.
    """
    ranks = np.linspace(0, rho ** (1 / power) - 1, classes)  # a c, c = 0..classes-1
    # 1e-6: a size that is an integer by the formula may be just below it in floating point
    return np.floor(largest * (1 + ranks) ** -power + 1e-6).astype(np.int64)


def proportional_counts(total: int, weights: Sequence[float]) -> np.ndarray:
    """Divide `total` in proportion to `weights` into integers of at least 1, int64.

    The missing images go to the largest remainders; among equal remainders, to the first. No rank of a rare class is
    empty. Raises ValueError if total < len(weights).
    """
    if total < len(weights):
        raise ValueError(f"{total} images cannot give each of {len(weights)} ranks one")
    exact = total * np.asarray(weights, dtype=np.float64) / np.sum(weights)
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    # The minimum of 1 can make the sum too large: reduce the count that exceeds its exact share most. Among equals, the
    # last one, so that counts never increase with the rank.
    while counts.sum() > total:
        over = np.where(counts > 1, counts - exact, -np.inf)
        counts[np.flatnonzero(over == over.max())[-1]] -= 1
    return counts


# the options that each shape of a Profile needs; others are refused
NEEDS = {
    "exponential": {"largest", "rho"},
    "step": {"largest", "rho"},
    "pareto": {"largest", "rho", "power"},
    "list": {"sizes"},
    "natural": set(),
}


class Profile(Spec):
    """How many images each class has. A shape takes exactly the options that it needs.

    exponential and step need largest and rho, pareto also power, list needs sizes, natural needs nothing.
    """

    shape: Literal["exponential", "step", "pareto", "list", "natural"] = Field(
        description="exponential, step, pareto: a formula, class 0 is the largest; list: the stated sizes; "
        "natural: all images that there are"
    )
    largest: int | None = Field(None, gt=0, description="images of the largest class")
    rho: float | None = Field(None, ge=1, description="imbalance ratio: images of the largest / of the smallest class")
    power: float | None = Field(None, gt=0, description="exponent of the Pareto law")
    sizes: Sizes | None = Field(None, description='images of class 0, 1, ...: a list, or text such as "500x3 497"')

    @model_validator(mode="after")
    def _check_options(self) -> "Profile":
        given = {name for name in ("largest", "rho", "power", "sizes") if getattr(self, name) is not None}
        if given != NEEDS[self.shape]:
            needed = ", ".join(sorted(NEEDS[self.shape])) or "nothing more"
            raise ValueError(f"shape {self.shape} needs {needed}; given: {', '.join(sorted(given)) or 'nothing'}")
        return self

    def class_sizes(self, available: np.ndarray) -> np.ndarray:
        """Return the images of each class, C, int64; available: how many images each class has, C.

        Raises Refused if a class has too few images, or if `sizes` is of another number of classes.
        """
        if self.shape == "natural":
            return available.astype(np.int64)
        wanted = self._wanted_sizes(len(available))
        if len(wanted) != len(available):
            raise Refused(f"profile: {len(wanted)} sizes for {len(available)} classes")
        short = np.flatnonzero(wanted > available)
        if len(short):
            lines = [f"class {c} has {available[c]} images, {wanted[c]} are wanted" for c in short[:EXAMPLES]]
            raise Refused(f"profile {self.shape}: {len(short)} classes are too small: {'; '.join(lines)}")
        return wanted

    def _wanted_sizes(self, classes: int) -> np.ndarray:
        # _check_options has made sure that the options of the shape are there; the defaults only satisfy the types
        largest, rho = self.largest or 0, self.rho or 1.0
        if self.shape == "exponential":
            return exponential_sizes(largest, rho, classes)
        if self.shape == "step":
            return step_sizes(largest, rho, classes)
        if self.shape == "pareto":
            return pareto_sizes(largest, rho, classes, self.power or 1.0)
        return np.array(self.sizes or [], dtype=np.int64)
