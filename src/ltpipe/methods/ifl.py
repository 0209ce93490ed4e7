"""Invariant feature learning (Tang et al., ECCV 2022, IFL) around a base method: environments that share class centres.

Each stream of training images is an environment. The first draws every image equally often. Each further one draws
every class equally often, and inside a class it prefers the images whose true class has a low probability
(`pareto_weights`). A step sees all environments in one batch. Its loss is the loss of the base method plus a weighted
centre loss, with one centre for each class that all environments share (algorithm 1 of the paper, "an IRM version of
centre loss").

Formula:
    loss        = base loss + a * centre loss         a: `centre_weight` of the epoch, 0 before `centre_from`
    euclidean   centre loss = mean_b ||z_b - C_yb||^2, clamped to [1e-12, 1e12]        z: features of all experts,
    cosine      centre loss = mean_b 1 - cos(z_b, C_yb)                                side by side
    centres     C_c <- C_c + 2 rate (n_c^B / B) (mean of z over class c in the batch - C_c) after each step
                C_c <- C_c - rate d/dC_c mean_b (1 - cos(z_b, C_yb))        `centre_step: gradient`, for the cosine
    n_c^B: images of class c in the batch

Use:
    ifl: {base: ce}
    ifl_balanced_softmax: {base: balanced_softmax}
    ifl_ride: {base: ride, centre: cosine}

Suggested values: from the authors' code for ImageNet-GLT and MSCOCO-GLT.
* The defaults: centre loss with weight 0.001 from epoch 60 and 0.005 from epoch 80 of 100, rate 0.5; new environments
  after epochs 60 and 80; two streams.
* `base: ride` and `base: ldam`: `centre: cosine`. With RIDE, the base is `{method: ride, options: {reweight: 81}}` and
  the run's `schedule` is `{decay: {60: 0.1, 80: 0.01}}`; with LDAM, they are `{method: ldam, options: {drw: 80}}` and
  `{decay: {80: 0.01, 90: 1.0e-4}}`.
* Post-hoc logit adjustment with IFL: a run of `logit_adjust` with `form: post_hoc` and `start_from: ifl`.
* As the authors ran it: `{scores: epoch, unseen: zero, centres: normal, prior: data}`, with cosine centres also
  `centre_step: gradient`.
* The IRM variant: `penalty: irm`, `updates: every` and `centre_weight: [0, 0]`.
* For a comparison at the cost of the base: `steps: fair`.

Where the authors' code differs: options that reproduce a difference are named.
* Scores come from the forward passes of the training epoch, with augmentation and changing weights, and an image that
  was not drawn (13.5 %) gets weight 0 in the new environment. Here: a separate pass without augmentation (`scores:
  pass`), or, with `scores: epoch`, the collected scores, where images that were not drawn get the mean of their class;
  `unseen: zero` gives them weight 0.
* An epoch is 2 N images (3 N with three environments): `steps: reference`. `steps: fair` gives N, as the base has.
* Centres start at N(0, 1), far from the features, and stay there until their loss is switched on: `centres: normal`.
  Here they start as the class means of that moment, as in the paper's algorithm.
* Losses with a class prior keep that of the split, although the new environment is class-balanced: `prior: data`. Here
  they get the prior of all environments together (`prior: stream`); the checkpoint's facts state it too.
* Its class prior itself is wrong for balanced softmax, LDAM, RIDE and TADE, because it sorts the classes as text; here
  the counts are in class order.
* Cosine centres follow SGD on the cosine loss, of which they hardly move: `centre_step: gradient`. Here the same moving
  average as the others, of features of length 1.
* With mixed images (base mixup), the centre loss is mixed as the labels are, as in the authors' code. `scores: epoch`
  scores an image by its own label on the mixed image, as the authors do.

Cost: with the default `steps: reference`, an epoch has as many times N images as there are environments, so the run
takes about twice as many steps as its base. With the default `scores: pass`, each update of the environments adds a
forward pass over the training split, and so does the start of the centres.

Attribution: Tang et al., ECCV 2022, arXiv:2207.09504; authors' code
KaihuaTang/Generalized-Long-Tailed-Benchmarks.pytorch (NTUitive licence, non-commercial use only, so nothing was
copied). The code here is written from the formulas.
"""

import math
from collections.abc import Sequence
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
# The `scale` of `pareto_weights` for each environment after the first.
SCALES = {"single": (), "dual": (4.0,), "triple": (2.0, 4.0)}


class Config(Spec):
    """The base method, the environments, and the terms that the loss gains."""

    base: str | dict[str, Any] = Field("ce", description="name of a method, or {method, options}")
    streams: Literal["single", "dual", "triple"] = Field(
        "dual", description="one, two or three environments; the further ones prefer hard images, by scale 4 or 2 and 4"
    )
    centre: Literal["euclidean", "cosine"] = Field("euclidean", description="distance in the centre loss")
    centres: Literal["mean", "normal"] = Field(
        "mean", description="how centres start: as class means when their loss begins, or at N(0, 1)"
    )
    centre_from: tuple[When, ...] = Field((0.6, 0.8), description="when each weight of `centre_weight` begins")
    centre_weight: tuple[float, ...] = Field(
        (0.001, 0.005), description="weights of the centre loss, as many as in `centre_from`; 0 before the first"
    )
    centre_step: Literal["average", "gradient"] = Field(
        "average", description="how centres move: a moving average, or SGD on their loss; for euclidean the same"
    )
    rate: float = Field(0.5, gt=0, le=0.5, description="rate of the moving average, or of SGD, of the centres")
    updates: tuple[When, ...] | Literal["every"] = Field(
        (0.6, 0.8), description="after which epochs the environments are drawn anew; `every`: after each epoch"
    )
    scores: Literal["pass", "epoch"] = Field(
        "pass", description="scores of the images: from a separate pass, or collected during the epoch"
    )
    unseen: Literal["mean", "zero"] = Field(
        "mean",
        description="with `scores: epoch`, images not drawn in the epoch: their class's mean score, or weight 0",
    )
    steps: Literal["reference", "fair"] = Field(
        "reference", description="images of an epoch: N for each environment, or N in all"
    )
    prior: Literal["stream", "data"] = Field(
        "stream", description="class prior that the base gets: of all environments together, or of the split"
    )
    penalty: Literal["none", "irm"] = Field("none", description="irm adds the penalty of IRM to the loss")
    penalty_weight: float = Field(0.001, ge=0, description="weight of the penalty at the start")
    penalty_from: tuple[When, ...] = Field((0.3, 0.6, 0.9), description="times at which that weight grows tenfold")

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        if len(self.centre_from) != len(self.centre_weight):
            raise ValueError("centre_from and centre_weight must be equally long")
        return self


def fill_unseen(scores: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """Return the scores with NaN replaced by the mean of the class's other scores, or by 1 if it has none; N, float64.

    scores: N. labels: N.
    """
    import torch

    seen = ~scores.isnan()
    values = torch.where(seen, scores, 0.0).double()
    sums = torch.zeros(classes, dtype=torch.float64, device=scores.device).index_add_(0, labels, values)
    counts = torch.zeros_like(sums).index_add_(0, labels, seen.double())
    means = torch.where(counts > 0, sums / counts.clamp(min=1), 1.0)
    return torch.where(seen, values, means[labels])


def pareto_weights(scores: "Tensor", labels: "Tensor", classes: int, scale: float = 4.0) -> "Tensor":
    """Return the sampling weights of an environment, N, float64: low scores give high weights, each class sums to 1.

    scores: probability of the true label, 0..1, N. labels: N. For a class with m images and scores p:

        m < 5   w = 1 / m
        else    u = |1 - (p - min p) / (max p - min p + 1e-9)| + 1e-5
                r = mean(largest floor(0.2 m) of u) / mean(smallest floor(0.8 m) of u) + 1e-5
                gamma = clip(ln scale / ln r, 1, 10);  w = (u^gamma + 1e-12) / sum over the class

    The formula is that of the authors' code ("Pareto 80/20", scale 4). The ratio of the two means after the power is
    not `scale`, because a mean of powers is not a power of means (it is 3.339 for ten equidistant scores).
    The cost is linear in N after two sorts, without a loop over images or classes. Classes may be empty.
    """
    import torch

    # Sort by class, and inside a class by falling score, which is rising u. The second sort is stable, so it keeps the
    # order of the first. `rank` is an image's position in its class, `owner` its class.
    rising = scores.double().argsort(descending=True)
    order = rising[labels[rising].argsort(stable=True)]
    sizes = torch.bincount(labels, minlength=classes)
    start = sizes.cumsum(0) - sizes
    owner, p = labels[order], scores[order].double()
    rank = torch.arange(len(order), device=order.device) - start[owner]
    last = len(order) - 1  # empty classes may point outside the array; their values are never used
    low, high = p[(start + sizes - 1).clamp(0, last)], p[start.clamp(0, last)]
    u = (1 - (p - low[owner]) / (high - low + 1e-9)[owner]).abs() + 1e-5

    def class_sums(values: "Tensor") -> "Tensor":
        return torch.zeros(classes, dtype=torch.float64, device=u.device).index_add_(0, owner, values)

    few, many = sizes // 5, 4 * sizes // 5
    top = class_sums(torch.where(rank >= (sizes - few)[owner], u, 0.0)) / few.clamp(min=1)
    bottom = class_sums(torch.where(rank < many[owner], u, 0.0)) / many.clamp(min=1)
    ratio = torch.where(bottom > 0, top / bottom, 1.0) + 1e-5
    gamma = (math.log(scale) / ratio.clamp(min=1 + 1e-9).log()).clamp(1, 10)
    raw = torch.where((sizes < 5)[owner], 1.0, u ** gamma[owner] + 1e-12)
    weights = torch.empty_like(raw)
    weights[order] = raw / class_sums(raw)[owner]
    return weights


def stream_prior(weights: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """Return the class distribution of images drawn equally often from each environment; C, float64, sum 1.

    weights: sampling weights of K environments, K x N. labels: N.
    """
    import torch

    mean = (weights / weights.sum(dim=1, keepdim=True)).mean(dim=0)
    return torch.zeros(classes, dtype=torch.float64, device=weights.device).index_add_(0, labels, mean.double())


def centre_loss(features: "Tensor", centres: "Tensor", kind: str) -> "Tensor":
    """Return the mean distance of features to the centres of their classes, squared Euclidean or 1 - cosine; scalar.

    features: B x D. centres: the centre of each image's class, B x D. kind: "euclidean" or "cosine".
    """
    from torch.nn import functional as F

    if kind == "cosine":
        return (1 - F.cosine_similarity(features, centres, dim=1)).mean()
    return (features - centres).square().sum(dim=1).clamp(1e-12, 1e12).mean()


def cosine_pull(features: "Tensor", centres: "Tensor") -> "Tensor":
    """Return -d/dC (1 - cos(z, C)) for each image, B x D: the direction in which SGD moves its centre.

    features: z, B x D. centres: C, the centre of each image's class, B x D. The result is at a right angle to C and
    goes with 1 / ||C||, so that centres from N(0, 1) in many dimensions hardly turn.
    """
    from torch.nn import functional as F

    length = centres.norm(dim=1, keepdim=True).clamp(min=1e-12)
    unit, z = centres / length, F.normalize(features, dim=1)
    return (z - (z * unit).sum(dim=1, keepdim=True) * unit) / length


def move_centres(
    centres: "Tensor", features: "Tensor", targets: "Sequence[tuple[Tensor, float]]", rate: float, cosine: bool
) -> None:
    """Move centres in place by a step of SGD on their loss, squared Euclidean or cosine.

    centres: C x D. features: B x D. targets: labels B and the share with which the images have them; mixed images have
    two. For the Euclidean loss the step is C_c += 2 rate share / B * sum of (z - C_c) over the images of class c.
    """
    pulls = [
        cosine_pull(features, centres[labels]) if cosine else 2 * (features - centres[labels]) for labels, _ in targets
    ]
    for (labels, share), pull in zip(targets, pulls, strict=True):
        centres.index_add_(0, labels, rate * share / len(labels) * pull)


def irm_penalty(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """Return sum_c |d CE(g * s, y) / d g_c| at g = 1, an IRMv1 penalty with a scale g_c for each class; scalar.

    logits: s, B x C. labels: B. The derivative is mean_b (softmax(s_b)_c - 1[y_b = c]) s_bc; this closed form saves a
    second backward pass. The authors take the absolute value, where Arjovsky et al., 2019 take the square.
    """
    from torch.nn import functional as F

    error = logits.softmax(dim=1) - F.one_hot(labels, logits.shape[1])
    return (error * logits).mean(dim=0).abs().sum()


class Method(method.Around):
    """Environments, centres and their schedules; everything else is done by the base."""

    def build(self, features: int) -> "nn.Module":
        """Return the buffers: centres C x (E D), weights of the environments K x N, and with `scores: epoch` scores N.

        Raises Refused if the base has streams of its own, because ifl draws the training images, or two whole networks,
        of which one is not served: scores and centres would be those of both.
        """
        import torch

        if type(self.innermost()).streams is not method.Method.streams:
            raise Refused("ifl draws the training images itself: its base must have no streams of its own")
        if self.needs().private == "all":
            raise Refused(
                "ifl scores images by the network that is served: its base must not train another one beside it"
            )
        own = super().build(features)
        images, width = len(self.problem.labels), features * self.needs().branches
        # Not the global generator: the weights of the base start as they do without centres. But its seed, because
        # centres that hardly move would otherwise be the same for all seeds of a run.
        generator = torch.Generator().manual_seed(torch.initial_seed())
        centres = torch.randn(self.problem.classes, width, generator=generator)
        own.register_buffer("centres", centres)
        own.register_buffer("weights", torch.ones(1 + len(SCALES[self.config.streams]), images))
        own.register_buffer("scores", torch.full((images if self.config.scores == "epoch" else 0,), math.nan))
        return own

    def centre_weight(self, epoch: int) -> float:
        """Return the weight a of the centre loss in `epoch`."""
        starts = [at(when, self.clock.epochs) for when in self.config.centre_from]
        passed = [a for start, a in zip(starts, self.config.centre_weight, strict=True) if start <= epoch]
        return passed[-1] if passed else 0.0

    def updates_after(self, epoch: int) -> bool:
        """Tell whether the environments are drawn anew after `epoch`; epoch -1 is before training."""
        if self.config.updates == "every":
            return epoch >= 0
        return epoch in [at(when, self.clock.epochs) for when in self.config.updates]

    def begin_epoch(self, embed: method.Embed) -> None:
        super().begin_epoch(embed)
        epoch = self.clock.epoch
        update = self.updates_after(epoch - 1)
        place = self.config.centres == "mean" and self.centre_weight(epoch) > 0 and self.centre_weight(epoch - 1) == 0
        if (update and self.config.scores == "pass") or place:
            scores, means = self._score_images(embed)
            if place:
                self.own.centres.copy_(means)
        if update:
            self._draw_environments(scores if self.config.scores == "pass" else self.own.scores)
        if self.config.scores == "epoch":
            self.own.scores.fill_(math.nan)

    def _score_images(self, embed: method.Embed) -> "tuple[Tensor, Tensor]":
        """Return scores N and class means of the features C x (E D), from one pass over the training split."""
        import torch

        means = torch.zeros_like(self.own.centres)
        counts = torch.zeros(len(means), device=means.device)
        scores = []
        for chunk in embed("train"):
            scores.append(chunk.logits.softmax(dim=1).gather(1, chunk.labels[:, None])[:, 0])
            means.index_add_(0, chunk.labels, self._as_centres(chunk.features))
            counts.index_add_(0, chunk.labels, torch.ones_like(scores[-1]))
        return torch.cat(scores), means / counts.clamp(min=1)[:, None]

    def _draw_environments(self, scores: "Tensor") -> None:
        """Compute new weights of the environments from the scores, N, and tell the base their class prior."""
        import torch

        labels = torch.as_tensor(self.problem.labels, device=scores.device)
        seen = ~scores.isnan()
        if self.config.unseen == "mean":
            scores, seen = fill_unseen(scores, labels, self.problem.classes), torch.ones_like(seen)
        for number, scale in enumerate(SCALES[self.config.streams], start=1):
            self.own.weights[number] = 0.0
            weights = pareto_weights(scores[seen], labels[seen], self.problem.classes, scale)
            self.own.weights[number, seen] = weights.to(self.own.weights.dtype)
        if self.config.prior == "stream":
            self.base.class_prior_changed(stream_prior(self.own.weights, labels, self.problem.classes))

    def streams(self) -> tuple[Stream, ...]:
        images, count = len(self.problem.labels), len(self.own.weights)
        length = images if self.config.steps == "reference" else -(-images // count)
        return tuple(Stream(weights=weights, length=length) for weights in self.own.weights)

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """Concatenate the environments' batches for the base."""
        return self.base.batch((method.Method.batch(self, streams),))

    def _as_centres(self, features: "Tensor") -> "Tensor":
        """Return features in the form of the centres: experts side by side, B x (E D), of length 1 for the cosine."""
        from torch.nn import functional as F

        flat = features.flatten(1)
        return F.normalize(flat, dim=1) if self.config.centre == "cosine" else flat

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        parts = super().loss(out, batch)
        if weight := self.centre_weight(self.clock.epoch):
            # Centres are buffers: no gradient reaches them. `after_step` moves them.
            features, centres = out.features.flatten(1), self.own.centres
            distance = centre_loss(features, centres[batch.labels], self.config.centre)
            if batch.other is not None:
                other = centre_loss(features, centres[batch.other], self.config.centre)
                distance = batch.share * distance + (1 - batch.share) * other
            parts |= {"loss": parts["loss"] + weight * distance, "centre": distance}
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
            targets = [(batch.labels, batch.share)]
            targets += [(batch.other, 1 - batch.share)] if batch.other is not None else []
            cosine = (self.config.centre, self.config.centre_step) == ("cosine", "gradient")
            move_centres(self.own.centres, self._as_centres(out.features), targets, self.config.rate, cosine)

    def finish(self, network: "Network", embed: method.Embed) -> dict[str, Any]:
        import torch

        labels = torch.as_tensor(self.problem.labels, device=self.own.weights.device)
        prior = stream_prior(self.own.weights, labels, self.problem.classes)
        return super().finish(network, embed) | {"stream_prior": [round(share, 6) for share in prior.tolist()]}
