"""Our functions on the inputs on which the authors' own functions were run, beside the figures that those gave.

tests/reference/authors.json holds inputs and figures: outputs of the repositories DRO-LT, LDAM-DRW, RIDE and GLT
(Generalized-Long-Tailed-Benchmarks) on small inputs that are exact in float32; 7 significant digits.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltpipe.evaluation.metrics.accuracy import accuracy
from ltpipe.evaluation.metrics.precision import precision
from ltpipe.interface.streams import Batch, Problem
from ltpipe.layers.heads import MultiHead, unit_vectors
from ltpipe.mathematics import losses
from ltpipe.methods import dro_lt, focal, ifl, ride, tade, tde
from ltpipe.models.network import Output
from ltpipe.recipe.run import MethodChoice

TOLERANCE = 1e-6  # of the largest figure: the figures have 7 digits, and ours are computed in float32
FIGURES: dict[str, Any] = json.loads((Path(__file__).parent / "reference/authors.json").read_text())
Pair = tuple[Any, Any]  # ours and theirs: numbers, arrays or tensors of one shape


@dataclass(frozen=True)
class Row:
    """A function of the authors, ours, what both give, and why ours differs (empty: it does not)."""

    theirs: str
    ours: str
    compare: Callable[[], Pair]
    differs: str = ""

    def difference(self) -> float:
        """Return the largest absolute difference."""
        ours, theirs = (np.asarray(torch.as_tensor(value).detach(), dtype=np.float64) for value in self.compare())
        assert ours.shape == theirs.shape, f"{ours.shape} against {theirs.shape}"
        return float(np.abs(ours - theirs).max())

    def tolerance(self) -> float:
        """Return how far ours may be off."""
        return TOLERANCE * float(np.abs(np.asarray(self.compare()[1], dtype=np.float64)).max())


def inputs(part: str, *names: str) -> list[Tensor]:
    """Return inputs of a part as tensors; labels become int64, all else float32."""
    return [torch.tensor(FIGURES[part][name]) for name in names]


def single(values: np.ndarray) -> Tensor:
    """Return float32, as methods keep their buffers."""
    return torch.tensor(values, dtype=torch.float32)


COUNTS = np.array(FIGURES["ldam"]["counts"])  # the same in all parts
PRIOR = COUNTS / COUNTS.sum()


@functools.cache
def robust(number: int, assignment: str = "reference") -> dict[str, Tensor]:
    """Return loss and gradients of case `number` of DRO-LT."""
    case = FIGURES["dro_lt"]["cases"][number]
    features, labels, centroids = inputs("dro_lt", "features", "labels", "centroids")
    order = case["order"]
    shown = features[order].requires_grad_()
    epsilon = torch.tensor(case["epsilon"] or [0.0] * len(centroids), requires_grad=True)
    radii = dro_lt.radii_of_samples(epsilon, labels[order], assignment)
    ones = torch.ones(len(centroids))
    loss = dro_lt.robust_loss(shown, labels[order], centroids, radii, ones, temperature=case["temperature"])
    by_features, by_epsilon = torch.autograd.grad(loss, (shown, epsilon))
    return {"loss": loss, "gradient_features": by_features, "gradient_epsilon": by_epsilon}


def dro_rows() -> list[Row]:
    """Return rows for each case: without radii, at temperature 0.5, sorted by class, and in the order of a batch."""
    titles = ("no radii", "temperature 0.5", "batch sorted by class", "batch not sorted")
    options = ("", "", "", ", epsilon_assignment: reference")

    def row(number: int, key: str, what: str) -> Row:
        figure = FIGURES["dro_lt"]["cases"][number][key]
        ours = f"dro_lt.robust_loss{what}{options[number]}"
        return Row(f"DROLoss{what}, {titles[number]}", ours, lambda: (robust(number)[key], figure))

    whats = (("loss", ""), ("gradient_features", ", gradient by features"), ("gradient_epsilon", ", gradient by radii"))
    cases = FIGURES["dro_lt"]["cases"]
    rows = [row(n, key, what) for n, case in enumerate(cases) for key, what in whats if case[key] is not None]
    why = "the authors' code gives a positive pair the radius of another image's class unless the batch is sorted"
    default = Row(
        "DROLoss, batch not sorted",
        "dro_lt.robust_loss, epsilon_assignment: correct (default)",
        lambda: (robust(3, "correct")["loss"], cases[3]["loss"]),
        why,
    )
    return [*rows, default]


def ldam_loss(weighted: bool) -> tuple[Tensor, Tensor]:
    """Return LDAM's loss and its gradient by the cosines."""
    cosines, labels = inputs("ldam", "cosines", "labels")
    cosines.requires_grad_()
    weight = single(losses.class_balanced_weights(COUNTS)) if weighted else None
    margin = single(30 * losses.ldam_margins(COUNTS))
    loss = losses.adjusted_loss(30 * cosines, labels, margin=margin, weight=weight)
    return loss, torch.autograd.grad(loss, cosines)[0]


def ldam_rows() -> list[Row]:
    """Return rows of LDAM-DRW: margins, weights, loss, weighted loss and gradient, start of the head, focal loss."""
    figures, head = FIGURES["ldam"], FIGURES["cosine_head_initialisation"]
    rows = [
        Row("LDAMLoss, margins", "losses.ldam_margins", lambda: (losses.ldam_margins(COUNTS), figures["margins"])),
        Row(
            "class-balanced weights of LDAM-DRW",
            "losses.class_balanced_weights",
            lambda: (losses.class_balanced_weights(COUNTS), figures["weights"]),
        ),
        Row("LDAMLoss", "losses.adjusted_loss", lambda: (ldam_loss(False)[0], figures["loss"])),
        Row("LDAMLoss, weighted", "losses.adjusted_loss", lambda: (ldam_loss(True)[0], figures["loss_weighted"])),
        Row(
            "LDAMLoss, weighted, gradient by cosines",
            "losses.adjusted_loss",
            lambda: (ldam_loss(True)[1], figures["gradient_weighted"]),
        ),
        Row(
            "start of the cosine heads of LDAM, RIDE and GLT",
            "heads.unit_vectors (theirs is features x classes, ours its transpose)",
            lambda: (unit_vectors(torch.tensor(head["uniform"]).T).T, head["initial"]),
        ),
    ]
    logits, labels = inputs("focal", "logits", "labels")

    def focal_row(case: dict[str, float]) -> Row:
        gamma = case["gamma"]
        return Row(
            f"FocalLoss of LDAM-DRW, gamma {gamma:g}",
            "focal.focal_loss",
            lambda: (focal.focal_loss(logits, labels, gamma), case["loss"]),
        )

    return rows + [focal_row(case) for case in FIGURES["focal"]["cases"]]


def tade_loss() -> Tensor:
    """Return TADE's loss at tau 2."""
    experts, labels = inputs("tade", "experts", "labels")
    shifts = tade.expert_shifts(single(losses.log_prior(PRIOR)), 2.0)
    return torch.stack([losses.adjusted_loss(s, labels, shift) for s, shift in zip(experts, shifts, strict=True)]).sum()


def ride_loss(reweighted: bool) -> Tensor:
    """Return RIDE's loss as its `Method.loss` gives it, before or after the epoch in which the weights begin."""
    cosines, labels = inputs("ride", "cosines", "labels")
    options = {"diversity": -0.45, "balance": 0.05, "reweight": 160}
    method = MethodChoice(method="ride", options=options).build(problem(), False)
    method.own, method.clock.epochs = method.build(4), 200
    method.clock.epoch = 160 if reweighted else 159  # from 0: the 161st is the first with weights
    experts = 30 * cosines.transpose(0, 1)
    return method.loss(Output(experts[..., :4], experts.mean(dim=1), experts), batch(labels))["loss"]


def problem() -> Problem:
    """Return the class sizes of the figures."""
    return Problem(np.repeat(np.arange(len(COUNTS)), COUNTS), len(COUNTS))


def batch(labels: Tensor) -> Batch:
    """Return a batch with these labels; losses do not look at its images."""
    return Batch(torch.zeros(len(labels), 0), labels, torch.arange(len(labels)))


def loss_rows() -> list[Row]:
    """Return rows of the losses with a class prior, and of the experts."""
    soft, tades, rides = FIGURES["balanced_softmax"], FIGURES["tade"], FIGURES["ride"]
    log_pi = single(losses.log_prior(PRIOR))
    logits, labels = inputs("balanced_softmax", "logits", "labels")
    before, after = rides["cases"]
    return [
        Row(
            "BlSoftmaxLoss of GLT",
            "losses.adjusted_loss with losses.log_prior",
            lambda: (losses.adjusted_loss(logits, labels, log_pi), soft["loss"]),
        ),
        Row(
            "post-hoc logit adjustment of GLT, tau 1",
            "losses.log_prior",
            lambda: (log_pi, FIGURES["logit_adjust"]["adjustment"]),
        ),
        Row("TADELoss of GLT, tau 2", "tade.expert_shifts, losses.adjusted_loss", lambda: (tade_loss(), tades["loss"])),
        Row(
            "TADELoss of GLT, inverse prior",
            "tade.inverse",
            lambda: (tade.inverse(single(PRIOR)), tades["inverse_prior"]),
        ),
        Row(
            "RIDELoss, temperatures of the classes",
            "ride.class_temperatures",
            lambda: (ride.class_temperatures(PRIOR, 0.05), rides["class_temperatures"]),
        ),
        Row("RIDELoss, epoch 160 of 200", "ride.Method.loss", lambda: (ride_loss(False), before["loss"])),
        Row("RIDELoss, epoch 161 of 200", "ride.Method.loss", lambda: (ride_loss(True), after["loss"])),
    ]


def centres_after_step(kind: str, **options: Any) -> Tensor:
    """Return the class centres of ifl after a step at rate 0.5."""
    features, labels = inputs("ifl_centres", "features", "labels")
    options = {"centre": kind, "centre_from": [0], "centre_weight": [1.0], "rate": 0.5, **options}
    method = MethodChoice(method="ifl", options=options).build(problem(), False)
    method.own, method.clock.epochs = method.build(4), 1
    method.own.centres.copy_(torch.tensor(FIGURES["ifl_centres"][kind]["centres"]))
    method.after_step(Output(features, torch.zeros(len(labels), len(COUNTS))), batch(labels))
    return method.own.centres


def ifl_rows() -> list[Row]:
    """Return rows of the environments and of the centres."""
    scores, owners = inputs("ifl_environment", "scores", "labels")
    features, labels = inputs("ifl_centres", "features", "labels")
    figures = FIGURES["ifl_centres"]

    def environment(case: dict[str, Any]) -> Row:
        return Row(
            f"generate_intra_weight of GLT, scale {case['scale']:g}",
            "ifl.pareto_weights",
            lambda: (ifl.pareto_weights(scores, owners, len(COUNTS), case["scale"]), case["weights"]),
        )

    def distance(name: str, kind: str) -> Row:
        centres = torch.tensor(figures[kind]["centres"])
        return Row(
            f"{name} of GLT", "ifl.centre_loss", lambda: (ifl.centre_loss(features, centres[labels], kind), loss(kind))
        )

    def loss(kind: str) -> float:
        return float(figures[kind]["loss"])

    return [
        *(environment(case) for case in FIGURES["ifl_environment"]["cases"]),
        distance("CenterLoss", "euclidean"),
        distance("CenterCosLoss", "cosine"),
        Row(
            "CenterLoss of GLT, centres after a step",
            "ifl.Method.after_step",
            lambda: (centres_after_step("euclidean"), figures["euclidean"]["centres_after_step"]),
        ),
        Row(
            "CenterCosLoss of GLT, centres after a step",
            "ifl.Method.after_step, centre: cosine, centre_step: gradient",
            lambda: (centres_after_step("cosine", centre_step="gradient"), figures["cosine"]["centres_after_step"]),
        ),
        Row(
            "CenterCosLoss of GLT, centres after a step",
            "ifl.Method.after_step, centre: cosine (default step)",
            lambda: (centres_after_step("cosine"), figures["cosine"]["centres_after_step"]),
            "the authors' centres follow the gradient of the cosine loss and hardly move; ours are a moving average of "
            "features of length 1",
        ),
    ]


def tde_logits() -> tuple[Tensor, Tensor]:
    """Return the logits of training and of the test."""
    features, weight, direction = inputs("tde", "features", "weight", "direction")
    head = MultiHead(4, len(weight), heads=2, scale=16.0, floor=1 / 32)
    with torch.no_grad():
        head.weight.copy_(torch.stack(weight.chunk(2, dim=1)))  # theirs: head k has the k-th half of the columns
        parts, effect = head(features), head(direction[None])[0]
        return parts.mean(dim=1), tde.without_direction(parts, features, direction, effect, 2.0)


def other_rows() -> list[Row]:
    """Return rows of TDE and of the metrics."""
    figures, metrics = FIGURES["tde"], FIGURES["metrics"]
    labels, predicted = np.array(metrics["labels"]), np.array(metrics["predicted"])
    return [
        Row(
            "ClassifierTDE of GLT, training",
            "heads.MultiHead",
            lambda: (tde_logits()[0], figures["logits_training"]),
        ),
        Row("ClassifierTDE of GLT, test", "tde.without_direction", lambda: (tde_logits()[1], figures["logits_test"])),
        Row("calculate_recall of GLT", "accuracy.accuracy", lambda: (accuracy(labels, predicted), metrics["accuracy"])),
        Row(
            "calculate_precision of GLT",
            "precision.precision",
            lambda: (precision(labels, predicted, len(COUNTS)), metrics["precision"]),
        ),
    ]


ROWS = [*dro_rows(), *ldam_rows(), *loss_rows(), *ifl_rows(), *other_rows()]
