"""Invariant feature learning (Tang et al., ECCV 2022, arXiv 2207.09504) around any base: environments and one centre
per class for all of them.

Each stream of training images is an environment. The first draws every image alike; each further one draws every class
alike, and inside a class the images that the network is least confident about more often (`pareto_weights`). A step
sees all environments in one batch; its loss is the base's plus a * centre loss, with one centre per class that all
environments share (algorithm 1 of the paper, "an IRM version of centre loss"):

    euclidean   mean_b ||z_b - C_yb||^2, clamped to [1e-12, 1e12]        z: all experts' features, concatenated
    cosine      mean_b 1 - cos(z_b, C_yb)
    centres     C_y <- C_y + 2 rate (n_y / B) (mean of class y's z - C_y) after the step; rate 0.5

Where the authors' code differs: (options that reproduce it are named)
* Scores come from the training epoch's augmented, drifting forward passes, and an image that was not drawn (13.5 %)
  gets weight 0 in the new environment. Here: a pass of its own without augmentation (`scores: pass`), or, with
  `scores: epoch`, the collected scores, the images not drawn getting their class's mean.
* An epoch is 2 N images (3 N with three environments): `steps: reference`. `steps: fair` gives N, as the base has.
* Centres start at N(0, 1), far from the features, when their loss is switched on: `centres: normal`. Here they start
  as the class means of that moment, as in the paper's algorithm.
* Losses with a class prior keep the split's, although the new environment is class-balanced: `prior: data`. Here they
  get the prior of the environments together (`prior: stream`); it is also among the checkpoint's facts.
* Cosine centres follow SGD on the cosine loss; here the same moving average as the others, of unit-length features.
* With mixed images the centre loss is mixed as the labels are; `scores: epoch` scores an image by its own label on the
  mixed image, as the authors do.
"""

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.interface import method
from ltpipe.interface.phases import When, at
from ltpipe.interface.streams import Batch, Stream

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output

EXAMPLE = {"centre_from": [0, 1], "centre_weight": [0.001, 0.005], "updates": [0]}
SCALES = {"single": (), "dual": (4.0,), "triple": (2.0, 4.0)}  # of each environment after the first


class Config(Spec):
    """base: a method's name, or {method, options}. centre_weight[i] is a from centre_from[i] on, and 0 before.

    updates: after which epochs the environments are drawn anew, or "every". penalty: "irm" adds penalty_weight *
    10^(number of penalty_from passed) * `irm_penalty`; the authors use it with centre_weight 0 and updates "every".
    """

    base: str | dict[str, Any] = "ce"
    streams: Literal["single", "dual", "triple"] = "dual"
    centre: Literal["euclidean", "cosine"] = "euclidean"
    centres: Literal["mean", "normal"] = "mean"
    centre_from: tuple[When, ...] = (0.6, 0.8)
    centre_weight: tuple[float, ...] = (0.001, 0.005)
    rate: float = Field(0.5, gt=0, le=0.5)
    updates: tuple[When, ...] | Literal["every"] = (0.6, 0.8)
    scores: Literal["pass", "epoch"] = "pass"
    steps: Literal["reference", "fair"] = "reference"
    prior: Literal["stream", "data"] = "stream"
    penalty: Literal["none", "irm"] = "none"
    penalty_weight: float = Field(0.001, ge=0)
    penalty_from: tuple[When, ...] = (0.3, 0.6, 0.9)

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        if len(self.centre_from) != len(self.centre_weight):
            raise ValueError("centre_from and centre_weight must be equally long")
        return self


def fill_unseen(scores: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """NaN scores replaced by the mean score of their class's others (1 where the class has none); N, float64."""
    import torch

    seen = ~scores.isnan()
    values = torch.where(seen, scores, 0.0).double()
    sums = torch.zeros(classes, dtype=torch.float64, device=scores.device).index_add_(0, labels, values)
    counts = torch.zeros_like(sums).index_add_(0, labels, seen.double())
    means = torch.where(counts > 0, sums / counts.clamp(min=1), 1.0)
    return torch.where(seen, values, means[labels])


def pareto_weights(scores: "Tensor", labels: "Tensor", classes: int, scale: float = 4.0) -> "Tensor":
    """Sampling weights of an environment, N, float64; each class's sum is 1, the least confident weigh the most.

    scores: N, probability of the true label, in 0..1. labels: N. Per class with m images and scores p:

        m < 5   w = 1 / m
        else    u = |1 - (p - min p) / (max p - min p + 1e-9)| + 1e-5
                r = mean(largest floor(0.2 m) of u) / mean(smallest floor(0.8 m) of u) + 1e-5
                gamma = clip(ln scale / ln r, 1, 10);  w = (u^gamma + 1e-12) / sum over the class

    Tang et al., authors' code ("Pareto 80/20", scale 4). The ratio of the two means after the power is not `scale`,
    because a mean of powers is not a power of means (3.339 for ten equidistant scores): the formula is theirs.
    Linear in N after two sorts; no loop over images or classes. Fewer images than N is no error: classes may be empty.
    """
    import torch

    rising = scores.double().argsort(descending=True)  # u rises as the score falls
    order = rising[labels[rising].argsort(stable=True)]
    sizes = torch.bincount(labels, minlength=classes)
    start = sizes.cumsum(0) - sizes
    owner, p = labels[order], scores[order].double()
    rank = torch.arange(len(order), device=order.device) - start[owner]
    last = len(order) - 1
    low, high = p[(start + sizes - 1).clamp(0, last)], p[start.clamp(0, last)]
    u = (1 - (p - low[owner]) / (high - low + 1e-9)[owner]).abs() + 1e-5

    def total(values: "Tensor") -> "Tensor":
        return torch.zeros(classes, dtype=torch.float64, device=u.device).index_add_(0, owner, values)

    few, many = sizes // 5, 4 * sizes // 5
    top = total(torch.where(rank >= (sizes - few)[owner], u, 0.0)) / few.clamp(min=1)
    bottom = total(torch.where(rank < many[owner], u, 0.0)) / many.clamp(min=1)
    ratio = torch.where(bottom > 0, top / bottom, 1.0) + 1e-5
    gamma = (math.log(scale) / ratio.clamp(min=1 + 1e-9).log()).clamp(1, 10)
    raw = torch.where((sizes < 5)[owner], 1.0, u ** gamma[owner] + 1e-12)
    weights = torch.empty_like(raw)
    weights[order] = raw / total(raw)[owner]
    return weights


def stream_prior(weights: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """Class distribution of images drawn from the environments in turn; C, float64. weights: K x N. labels: N."""
    import torch

    mean = (weights / weights.sum(dim=1, keepdim=True)).mean(dim=0)
    return torch.zeros(classes, dtype=torch.float64, device=weights.device).index_add_(0, labels, mean.double())


def centre_loss(features: "Tensor", centres: "Tensor", kind: str) -> "Tensor":
    """Mean distance of features (B x D) to their own centres (B x D): squared Euclidean, or 1 - cosine; scalar."""
    from torch.nn import functional as F

    if kind == "cosine":
        return (1 - F.cosine_similarity(features, centres, dim=1)).mean()
    return (features - centres).square().sum(dim=1).clamp(1e-12, 1e12).mean()


def move_centres(centres: "Tensor", features: "Tensor", labels: "Tensor", step: float) -> None:
    """In place C_y += step * sum over the batch's class y of (z - C_y); centres: C x D, features: B x D, labels: B.

    With step = 2 rate / B it is SGD of that rate on the squared Euclidean centre loss.
    """
    centres.index_add_(0, labels, step * (features - centres[labels]))


def irm_penalty(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """sum_c |d CE(g * s, y) / d g_c| at g = 1: an IRMv1 penalty with one scale per class, over one batch; scalar.

    logits s: B x C. The derivative is mean_b (softmax(s_b)_c - 1[y_b = c]) s_bc, in closed form: no second backward
    pass. The authors take the absolute value, where Arjovsky et al., 2019 take the square.
    """
    from torch.nn import functional as F

    error = logits.softmax(dim=1) - F.one_hot(labels, logits.shape[1])
    return (error * logits).mean(dim=0).abs().sum()


class Method(method.Around):
    """Environments, centres and their schedules; everything else is the base's."""

    def build(self, features: int) -> "nn.Module":
        """Centres C x (E D), environments' weights K x N, and with `scores: epoch` the collected scores N."""
        import torch

        if type(self.innermost()).streams is not method.Method.streams:
            raise Refused("ifl draws the training images itself: its base must have no streams of its own")
        own = super().build(features)
        images, width = len(self.problem.labels), features * self.needs().branches
        # a generator of its own, so that the base's weights start as they do without centres
        centres = torch.randn(self.problem.classes, width, generator=torch.Generator().manual_seed(0))
        own.register_buffer("centres", centres)
        own.register_buffer("weights", torch.ones(1 + len(SCALES[self.config.streams]), images))
        own.register_buffer("scores", torch.full((images if self.config.scores == "epoch" else 0,), math.nan))
        return own

    def centre_weight(self, epoch: int) -> float:
        """The centre loss's weight in `epoch`."""
        starts = [at(when, self.clock.epochs) for when in self.config.centre_from]
        passed = [a for start, a in zip(starts, self.config.centre_weight, strict=True) if start <= epoch]
        return passed[-1] if passed else 0.0

    def updates_after(self, epoch: int) -> bool:
        """The environments are drawn anew after `epoch`."""
        if self.config.updates == "every":
            return epoch >= 0
        return epoch in [at(when, self.clock.epochs) for when in self.config.updates]

    def begin_epoch(self, embed: method.Embed) -> None:
        super().begin_epoch(embed)
        epoch = self.clock.epoch
        update = self.updates_after(epoch - 1)
        place = self.config.centres == "mean" and self.centre_weight(epoch) > 0 and self.centre_weight(epoch - 1) == 0
        if (update and self.config.scores == "pass") or place:
            scores, means = self._pass(embed)
            if place:
                self.own.centres.copy_(means)
        if update:
            self._draw(scores if self.config.scores == "pass" else self.own.scores)
        if self.config.scores == "epoch":
            self.own.scores.fill_(math.nan)

    def _pass(self, embed: method.Embed) -> "tuple[Tensor, Tensor]":
        """One pass over the training split: scores N and class means C x (E D)."""
        import torch

        means = torch.zeros_like(self.own.centres)
        counts = torch.zeros(len(means), device=means.device)
        scores = []
        for chunk in embed("train"):
            scores.append(chunk.logits.softmax(dim=1).gather(1, chunk.labels[:, None])[:, 0])
            means.index_add_(0, chunk.labels, self._placed(chunk.features))
            counts.index_add_(0, chunk.labels, torch.ones_like(scores[-1]))
        return torch.cat(scores), means / counts.clamp(min=1)[:, None]

    def _draw(self, scores: "Tensor") -> None:
        """New environments from the scores, and the base told of their class prior."""
        import torch

        labels = torch.as_tensor(self.problem.labels, device=scores.device)
        filled = fill_unseen(scores, labels, self.problem.classes)
        for number, scale in enumerate(SCALES[self.config.streams], start=1):
            self.own.weights[number] = pareto_weights(filled, labels, self.problem.classes, scale)
        if self.config.prior == "stream":
            self.base.class_prior_changed(stream_prior(self.own.weights, labels, self.problem.classes))

    def streams(self) -> tuple[Stream, ...]:
        images, count = len(self.problem.labels), len(self.own.weights)
        length = images if self.config.steps == "reference" else -(-images // count)
        return tuple(Stream(weights=weights, length=length) for weights in self.own.weights)

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """The environments' batches as one, as which the base gets it."""
        return self.base.batch((method.Method.batch(self, streams),))

    def _placed(self, features: "Tensor") -> "Tensor":
        """Features as the centres have them: experts side by side, of unit length for the cosine."""
        from torch.nn import functional as F

        flat = features.flatten(1)
        return F.normalize(flat, dim=1) if self.config.centre == "cosine" else flat

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        parts = super().loss(out, batch)
        if weight := self.centre_weight(self.clock.epoch):
            features, centres = out.features.flatten(1), self.own.centres
            pull = centre_loss(features, centres[batch.labels], self.config.centre)
            if batch.other is not None:
                other = centre_loss(features, centres[batch.other], self.config.centre)
                pull = batch.share * pull + (1 - batch.share) * other
            parts |= {"loss": parts["loss"] + weight * pull, "centre": pull}
        if self.config.penalty == "irm":
            penalty = irm_penalty(out.logits, batch.labels)
            factor = 10 ** sum(map(self.clock.passed, self.config.penalty_from))
            parts |= {"loss": parts["loss"] + self.config.penalty_weight * factor * penalty, "penalty": penalty}
        return parts

    def after_step(self, out: "Output", batch: Batch) -> None:
        super().after_step(out, batch)
        if self.config.scores == "epoch" and self.updates_after(self.clock.epoch):
            self.own.scores[batch.index] = out.logits.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
        if self.centre_weight(self.clock.epoch):
            step, features = 2 * self.config.rate / len(batch.labels), self._placed(out.features)
            move_centres(self.own.centres, features, batch.labels, step * batch.share)
            if batch.other is not None:
                move_centres(self.own.centres, features, batch.other, step * (1 - batch.share))

    def finish(self, network: "Network", embed: method.Embed) -> dict[str, Any]:
        import torch

        labels = torch.as_tensor(self.problem.labels, device=self.own.weights.device)
        prior = stream_prior(self.own.weights, labels, self.problem.classes)
        return super().finish(network, embed) | {"stream_prior": [round(share, 6) for share in prior.tolist()]}
