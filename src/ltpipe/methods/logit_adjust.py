"""Logit adjustment (Menon et al., ICLR 2021): subtract tau * log prior after training, or add it inside the loss.

    post-hoc (eq. 9)    train with cross-entropy, predict argmax_y s_y - tau * log pi_y
    loss (eq. 10)       cross-entropy on s + tau * log pi, predict argmax_y s_y
    adaptive (table 4)  the loss with Delta_yy' = log(pi_y' / pi_y) + pi_y^(-1/4): LA with LDAM's margin

pi is the class prior of the training stream: that of the split, or of the environments where the run resamples. tau =
"val" picks the tau of 0, 0.1, ..., 3 with the best MACRO recall on the validation split; never on test. Classes absent
from that split are counted and named in the checkpoint's facts.

Where the authors' code differs: it uses log(pi^tau + 1e-12), which saturates for rare classes and large tau; here it is
tau * log pi. The paper's tau* is the best value on the evaluation set, an oracle; ours is chosen on validation.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, log_prior
from ltpipe.mathematics.tau import choose

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output


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


class Method(method.Method):
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

    def class_prior_changed(self, prior: "Tensor") -> None:
        self.own.log_prior.copy_(prior.log())
        self.own.margin.copy_(prior**-0.25)

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        """Post-hoc from a finished run trains nothing; post-hoc without one trains cross-entropy first."""
        return () if self.started and self.config.form == "post_hoc" else (schedule,)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        if self.config.form == "post_hoc":
            return super().loss(out, batch)
        margin = self.own.margin if self.config.margin == "adaptive" else None
        return {"loss": adjusted_loss(out.logits, batch.labels, self.own.tau * self.own.log_prior, margin)}

    def finish(self, network: "Network", embed: method.Embed) -> dict[str, Any]:
        if self.config.tau != "val":
            return {}
        val = method.concatenate(embed("val"))
        found = choose(lambda tau: val.logits - tau * self.own.log_prior, val.labels, self.problem.classes)
        self.own.tau.fill_(found["tau"])
        return found

    def predict(self, out: "Output") -> "Tensor":
        if self.config.form == "loss":
            return out.logits
        return out.logits - self.own.tau * self.own.log_prior
