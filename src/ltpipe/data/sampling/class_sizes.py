"""Class sizes of a long tail, and shares of a class as integers: pure arithmetic, no image."""

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
    """Integers from a run-length coded text: "500x3 497" is 500, 500, 500, 497. Anything else comes back as it is."""
    if not isinstance(value, str):
        return value
    runs = [(word, RUN.fullmatch(word)) for word in value.split()]
    if wrong := [word for word, run in runs if run is None]:
        raise ValueError(f"not a size, nor size x repeats as in 500x3: {', '.join(wrong[:EXAMPLES])}")
    return [int(run[1]) for _, run in runs if run for _ in range(int(run[2] or 1))]


def encode_runs(sizes: Sequence[int]) -> str:
    """`sizes` run-length coded, as `decode_runs` reads them."""
    runs = [(size, len(list(same))) for size, same in groupby(sizes)]
    return " ".join(f"{size}x{repeats}" if repeats > 1 else str(size) for size, repeats in runs)


# images of class 0, 1, ...: a list, or run-length coded in one text
Sizes = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(decode_runs)]


def exponential(largest: int, rho: float, classes: int) -> np.ndarray:
    """n_c = int(largest * (1/rho)^(c/(classes-1))), c = 0..classes-1, int64.

    Cao et al., NeurIPS 2019 (LDAM), whose generator truncates; class 0 is the largest. The smallest class can be one
    less than largest/rho where the power falls below an integer in floating point, as in the authors' code.
    """
    if classes == 1:
        return np.array([largest], dtype=np.int64)
    return np.array([int(largest * (1 / rho) ** (c / (classes - 1.0))) for c in range(classes)], dtype=np.int64)


def step(largest: int, rho: float, classes: int) -> np.ndarray:
    """The first classes // 2 have `largest`, the others int(largest * (1/rho)), int64 (Cao et al., NeurIPS 2019)."""
    half = classes // 2
    return np.repeat(np.array([largest, int(largest * (1 / rho))], dtype=np.int64), [half, classes - half])


def pareto(largest: int, rho: float, classes: int, power: float) -> np.ndarray:
    """n_c = int(largest * (1 + a c)^-power), with the a that gives the last class largest/rho, int64.

    A Pareto (Lomax) law of size by rank. ImageNet-LT is said to follow a Pareto law of power 6 (Liu et al., CVPR 2019),
    but how its classes were drawn was not published, and this law does not give its total: use its list files.
    """
    ranks = np.linspace(0, rho ** (1 / power) - 1, classes)
    return np.floor(largest * (1 + ranks) ** -power + 1e-6).astype(np.int64)


def shares(total: int, weights: Sequence[float]) -> np.ndarray:
    """`total` in proportion to `weights`, positive integers, int64 (largest remainders; of equals the first gets more).

    Every share is at least 1, so that no rank of a rare class is empty; needs total >= len(weights).
    """
    if total < len(weights):
        raise ValueError(f"{total} images cannot give each of {len(weights)} ranks one")
    exact = total * np.asarray(weights, dtype=np.float64) / np.sum(weights)
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > total:
        over = np.where(counts > 1, counts - exact, -np.inf)
        counts[np.flatnonzero(over == over.max())[-1]] -= 1
    return counts


NEEDS = {
    "exponential": {"largest", "rho"},
    "step": {"largest", "rho"},
    "pareto": {"largest", "rho", "power"},
    "list": {"sizes"},
    "natural": set(),
}


class Profile(Spec):
    """Images of each class, largest class first; `natural` takes what there is.

    shape: exponential, step and pareto need largest and rho (pareto also power), list needs sizes.
    """

    shape: Literal["exponential", "step", "pareto", "list", "natural"]
    largest: int | None = Field(None, gt=0, description="images of the largest class")
    rho: float | None = Field(None, ge=1, description="largest / smallest class")
    power: float | None = Field(None, gt=0)
    sizes: Sizes | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Profile":
        given = {name for name in ("largest", "rho", "power", "sizes") if getattr(self, name) is not None}
        if given != NEEDS[self.shape]:
            needed = ", ".join(sorted(NEEDS[self.shape])) or "nothing more"
            raise ValueError(f"shape {self.shape} needs {needed}; given: {', '.join(sorted(given)) or 'nothing'}")
        return self

    def of(self, available: np.ndarray) -> np.ndarray:
        """Images of each class, C, int64, of the `available` ones. Raises Refused where a class has too few."""
        if self.shape == "natural":
            return available.astype(np.int64)
        wanted = self._wanted(len(available))
        if len(wanted) != len(available):
            raise Refused(f"profile: {len(wanted)} sizes for {len(available)} classes")
        short = np.flatnonzero(wanted > available)
        if len(short):
            lines = [f"class {c} has {available[c]} images, {wanted[c]} are wanted" for c in short[:EXAMPLES]]
            raise Refused(f"profile {self.shape}: {len(short)} classes are too small: {'; '.join(lines)}")
        return wanted

    def _wanted(self, classes: int) -> np.ndarray:
        largest, rho = self.largest or 0, self.rho or 1.0
        if self.shape == "exponential":
            return exponential(largest, rho, classes)
        if self.shape == "step":
            return step(largest, rho, classes)
        if self.shape == "pareto":
            return pareto(largest, rho, classes, self.power or 1.0)
        return np.array(self.sizes or [], dtype=np.int64)
