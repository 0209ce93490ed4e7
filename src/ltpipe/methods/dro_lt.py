"""Distributional robustness loss (Samuel and Chechik, ICCV 2021, DRO-LT): features near their class's centroid even if
the centroid is estimated badly.

    D_cb  = ||mu_c - z_b||_2                                   Euclidean, not squared; z not normalised
    S_cb  = -(D_cb + kappa eps_c [y_b = c]) / T                eps_c: radius of the centroid's uncertainty
    L_c   = -1/n_c^B sum_{b: y_b = c} (S_cb - logsumexp_b' S_cb')          softmax over the BATCH, one per centroid
    L_rob = sum_c w_c L_c / sum_c w_c                          over the classes of the batch; its minimum is log n_c^B

    1  cross-entropy, the benchmark's schedule; left out where the run starts from a finished one
    2  backbone and radii on CE + L_rob, the classifier frozen; class-aware sampling, 4 images a drawn class
    3  classifier only, plain CE, everything else frozen in eval mode (so are the batch-norm statistics)

The CE of phase 2 is weighted by n_c (`ce_weights: lt`), which gives it the long-tailed distribution back under
class-balanced sampling. Centroids are running sums of ONE pass over the training split at the start of an epoch, kept
in a buffer and constant for the epoch.

Where the authors' code differs: (options that reproduce it are named)
* It gives a positive pair the radius of another image's class, because it pairs a centroid-by-centroid list with an
  image-by-image one: `epsilon_assignment: reference`.
* Learned radii are unconstrained: their gradient (kappa / T) (1 - sum of p over positives) >= 0 only ever shrinks
  them, through 0, after which they reward what they should penalise: `positive: none`. Also, they get weight decay.
* Centroids are of the augmented, class-balanced stream; here of the split's images as they are.
* Phase 2 ends at the epoch with the best accuracy on the TEST set, and so does phase 3. Here: the last epoch.
* exp without a shift underflows to NaN for far centroids; here logsumexp.
* Phases 2 and 3 use AutoAugment and Cutout (16 pixels): `augment: reference`.
* The paper weighs lambda CE + (1 - lambda) L_rob (`objective: 0.5`); the code adds them (`objective: sum`).
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase, When, at
from ltpipe.interface.streams import Batch, Stream
from ltpipe.mathematics.losses import adjusted_loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output

EXAMPLE = {"feature_epochs": 1, "classifier_epochs": 1}
Weights = Literal["none", "lt", "bal"]


class Config(Spec):
    """radius: one `epsilon`, epsilon / sqrt(n_c), or learned from `epsilon` on, kept >= 0 by `positive`.

    feature_epochs, classifier_epochs: of phases 2 and 3; a fraction is one of the benchmark's epochs, 1 at least. Their
    learning rates are constant. images: an epoch of theirs; None is n_max * C, as in the authors' sampler.
    """

    radius: Literal["learned", "fixed", "per_class"] = "learned"
    epsilon: float = Field(1.0, ge=0)
    positive: Literal["softplus", "clamp", "none"] = "softplus"
    kappa: Literal[1, 2] = 1
    temperature: float = Field(1.0, gt=0)
    objective: Literal["sum"] | float = "sum"
    ce_weights: Weights = "lt"
    robust_weights: Weights = "none"
    per_class: int = Field(4, ge=1)
    images: int | None = Field(None, gt=1)
    feature_epochs: When = 0.4
    feature_lr: float = Field(0.005, gt=0)
    classifier_epochs: When = 0.1
    classifier_lr: float = Field(0.01, gt=0)
    epsilon_assignment: Literal["correct", "reference"] = "correct"
    augment: Literal["schedule", "reference"] = "schedule"


def class_weights(counts: np.ndarray, kind: Weights) -> np.ndarray:
    """w_c, C, float64: 1; n_c / n_max ("lt"); or N / (C n_c) ("bal", 0 for a class without images)."""
    counts = np.asarray(counts, dtype=np.float64)
    if kind == "lt":
        return np.asarray(counts / counts.max())
    if kind == "bal":
        return np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0)
    return np.ones_like(counts)


def radii_of_samples(radii: "Tensor", labels: "Tensor", assignment: str) -> "Tensor":
    """The radius that each image's positive pair gets, B. radii: C. labels: B.

    "reference": the k-th positive pair counted centroid by centroid gets the radius of the k-th image's class.
    """
    import torch

    if assignment == "correct":
        return radii[labels]
    given = torch.empty_like(radii[labels])
    return given.scatter(0, labels.argsort(stable=True), radii[labels])


def robust_loss(
    features: "Tensor",
    labels: "Tensor",
    centroids: "Tensor",
    radii: "Tensor",
    weights: "Tensor",
    *,
    kappa: float = 1.0,
    temperature: float = 1.0,
) -> "Tensor":
    """L_rob, scalar, nats. features: B x D. labels: B. centroids: C x D. radii: B, each image's own. weights: C.

    A row of the B x B matrix is one image's own centroid, so that a class of n images has n equal rows, and classes
    that the batch lacks have none: no list of present classes, hence no wait for the device. The gradient at distance
    0 is 0.
    """
    import torch

    distance = torch.cdist(centroids[labels], features, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    scores = -(distance + kappa * torch.where(same, radii, 0.0)) / temperature
    losses = scores.logsumexp(dim=1) - scores.diagonal()
    share = weights[labels] / same.sum(dim=1)  # sums over a class's images to its weight
    return (share * losses).sum() / share.sum()


def radius_of(raw: "Tensor", positive: str) -> "Tensor":
    """The radius of the learned parameter `raw`, C."""
    from torch.nn import functional as F

    if positive == "softplus":
        return F.softplus(raw)
    return raw.clamp(min=0) if positive == "clamp" else raw


def raw_of(radius: float, positive: str) -> float:
    """The inverse of `radius_of` for radius >= 0; softplus reaches no radius below 1e-6."""
    return float(np.log(np.expm1(max(radius, 1e-6)))) if positive == "softplus" else radius


class Method(method.Method):
    """Three phases; centroids and radii in buffers and parameters."""

    def own_group(self) -> dict[str, float]:
        """No weight decay on radii."""
        return {"weight_decay": 0.0}

    def build(self, features: int) -> "nn.Module":
        import torch
        from torch import nn

        own, config, counts = nn.Module(), self.config, self.problem.counts
        own.register_buffer("centroids", torch.zeros(len(counts), features))
        for name in ("ce_weights", "robust_weights"):
            weights = class_weights(counts, getattr(config, name))
            own.register_buffer(name, torch.tensor(weights, dtype=torch.float32))
        if config.radius == "learned":
            own.radius = nn.Parameter(torch.full((len(counts),), raw_of(config.epsilon, config.positive)))
        else:
            scale = np.maximum(counts, 1) ** -0.5 if config.radius == "per_class" else np.ones(len(counts))
            own.register_buffer("radius", torch.tensor(config.epsilon * scale, dtype=torch.float32))
        return own

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        changes = {"autoaugment": True, "cutout": 16} if self.config.augment == "reference" else {}
        augment = schedule.augmented(**changes).augment

        def phase(when: int | float, lr: float, *trainable: str) -> Phase:
            return Phase(max(at(when, schedule.epochs), 1), lr, decay={}, trainable=trainable, augment=augment)

        features = phase(self.config.feature_epochs, self.config.feature_lr, "backbone", "own")
        classifier = phase(self.config.classifier_epochs, self.config.classifier_lr, "head")
        return (features, classifier) if self.started else (schedule, features, classifier)

    def stage(self) -> int:
        """1, 2 or 3."""
        return self.clock.phase + 1 + self.started

    def streams(self) -> tuple[Stream, ...]:
        if self.stage() == 1:
            return (Stream(),)
        images = self.config.images or int(self.problem.counts.max()) * self.problem.classes
        return (Stream(per_class=self.config.per_class, length=images),)

    def begin_epoch(self, embed: method.Embed) -> None:
        """Centroids: class means of the training split; C x D sums, not N x D features."""
        import torch

        if self.stage() != 2:
            return
        sums = torch.zeros_like(self.own.centroids)
        counts = torch.zeros(len(sums), device=sums.device)
        for chunk in embed("train"):
            sums.index_add_(0, chunk.labels, chunk.features)
            counts.index_add_(0, chunk.labels, torch.ones_like(chunk.labels, dtype=torch.float32))
        self.own.centroids.copy_(sums / counts.clamp(min=1)[:, None])

    def radii(self) -> "Tensor":
        """Radius of each class, C."""
        if self.config.radius != "learned":
            return self.own.radius  # type: ignore[no-any-return]
        return radius_of(self.own.radius, self.config.positive)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        if self.stage() != 2:
            return super().loss(out, batch)
        ce = adjusted_loss(out.logits, batch.labels, weight=self.own.ce_weights)
        radii = radii_of_samples(self.radii(), batch.labels, self.config.epsilon_assignment)
        robust = robust_loss(
            out.features,
            batch.labels,
            self.own.centroids,
            radii,
            self.own.robust_weights,
            kappa=self.config.kappa,
            temperature=self.config.temperature,
        )
        share = self.config.objective
        loss = ce + robust if share == "sum" else share * ce + (1 - share) * robust
        return {"loss": loss, "ce": ce, "robust": robust, "radius": self.radii().mean()}
