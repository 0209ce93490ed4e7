"""Logit adjustment (Menon et al., ICLR 2021): subtract tau * log prior after training, or add it inside the loss.

    post-hoc (eq. 9)    train with cross-entropy, predict argmax_y s_y - tau * log pi_y
    loss (eq. 10)       cross-entropy on s + tau * log pi, predict argmax_y s_y
    adaptive (table 4)  the loss with Delta_yy' = log(pi_y' / pi_y) + pi_y^(-1/4): LA with LDAM's margin

pi is the class prior of the training stream. tau = "val" picks the tau of 0, 0.1, ..., 3 with the best MACRO recall on
the validation split (plain accuracy on a long-tailed validation set picks 0); never on test.

Where the authors' code differs: it uses log(pi^tau + 1e-12), which saturates for rare classes and large tau; here it is
tau * log pi. The paper's tau* is the best value on the evaluation set, an oracle; ours is chosen on validation.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.methods import base
from ltpipe.specs import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output

TAUS = tuple(round(0.1 * step, 1) for step in range(31))


class Config(Spec):
    """form: where the adjustment is made. tau: its strength, or "val". margin: "adaptive" adds pi_y^(-1/4)."""

    form: Literal["loss", "post_hoc"] = "loss"
    tau: float | Literal["val"] = Field(1.0)
    margin: Literal["none", "adaptive"] = "none"

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        if self.tau != "val" and self.tau < 0:
            raise ValueError(f"tau must not be negative: {self.tau}")
        if self.form == "loss" and self.tau == "val":
            raise ValueError("tau: val needs form: post_hoc; in the loss tau is fixed before training")
        if self.form == "post_hoc" and self.margin != "none":
            raise ValueError("margin: adaptive is a loss; use form: loss")
        return self


def log_prior(prior: np.ndarray) -> np.ndarray:
    """log pi, C, float64; prior: C, sums to 1. Raises ValueError where a class has no image (its log is -inf)."""
    absent = np.flatnonzero(prior <= 0)
    if len(absent):
        raise ValueError(f"logit adjustment needs an image of every class; none of: {absent.tolist()}")
    return np.log(prior)


def adjusted_loss(logits: "Tensor", labels: "Tensor", shift: "Tensor", margin: "Tensor | None" = None) -> "Tensor":
    """Mean cross-entropy of logits + shift (eq. 10); scalar, nats.

    logits: B x C. labels: B. shift: C, tau * log pi. margin: C, subtracted from the true class's logit (table 4).
    """
    from torch.nn import functional as F

    adjusted = logits + shift
    if margin is not None:
        adjusted = adjusted - margin[labels][:, None] * F.one_hot(labels, logits.shape[1])
    return F.cross_entropy(adjusted, labels)


def macro_recall(predicted: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """Mean recall over the classes present in `labels`; predicted: K x B for K candidates. Returns K, 0..1."""
    from torch.nn import functional as F

    member = F.one_hot(labels, classes).double()
    hits = (predicted == labels).double() @ member
    present = member.sum(dim=0)
    return (hits[:, present > 0] / present[present > 0]).mean(dim=1)


def predictions_by_tau(logits: "Tensor", prior: "Tensor") -> "Tensor":
    """Prediction of each tau of TAUS, K x B; logits: B x C, prior: log pi, C."""
    import torch

    return torch.stack([(logits - tau * prior).argmax(dim=1) for tau in TAUS])


class Method(base.Method):
    """The adjustment as a buffer: of the loss, or of the exported prediction."""

    def build(self, features: int) -> "nn.Module":
        import torch
        from torch import nn

        own = nn.Module()
        prior = log_prior(self.problem.prior)
        tau = 0.0 if self.config.tau == "val" else self.config.tau
        own.register_buffer("log_prior", torch.tensor(prior, dtype=torch.float32))
        own.register_buffer("margin", torch.tensor(np.exp(-prior / 4), dtype=torch.float32))
        own.register_buffer("tau", torch.tensor(tau))
        return own

    def phases(self, whole: base.Phase) -> tuple[base.Phase, ...]:
        """Post-hoc from a finished run trains nothing; post-hoc without one trains cross-entropy first."""
        return () if self.started and self.config.form == "post_hoc" else (whole,)

    def loss(self, out: "Output", batch: base.Batch) -> "dict[str, Tensor]":
        if self.config.form == "post_hoc":
            return super().loss(out, batch)
        margin = self.own.margin if self.config.margin == "adaptive" else None
        return {"loss": adjusted_loss(out.logits, batch.labels, self.own.tau * self.own.log_prior, margin)}

    def finish(self, network: "Network", embed: base.Embed) -> dict[str, Any]:
        if self.config.tau != "val":
            return {}
        val = embed("val")
        candidates = predictions_by_tau(val.logits, self.own.log_prior)
        recall = macro_recall(candidates, val.labels, self.problem.classes)
        self.own.tau.fill_(TAUS[int(recall.argmax())])
        absent = sorted(set(range(self.problem.classes)) - set(val.labels.tolist()))
        return {"tau": TAUS[int(recall.argmax())], "tau_macro_recall": float(recall.max()), "val_absent": absent}

    def predict(self, out: "Output") -> "Tensor":
        if self.config.form == "loss":
            return out.logits
        return out.logits - self.own.tau * self.own.log_prior
