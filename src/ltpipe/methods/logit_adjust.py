"""Logit adjustment (Menon et al., ICLR 2021): subtract tau * log prior after training, or add it inside the loss.

`form: post_hoc` trains with cross-entropy, or takes a finished run, and corrects the prediction: rare classes gain.
`form: loss` adds the log prior to the logits during training, so that the network learns the correction; the prediction
uses the plain logits. Never combine both. The prior is that of the split, or, where `ifl` trains around this
method as its base, that of its environments. A run of this method that starts from a finished one (`start_from: ifl`)
has the split's, also if the finished one resampled the images.

Formula:
    post_hoc (eq. 9)          loss = CE(s, y)                              prediction: argmax_c s_c - tau log pi_c
    loss     (eq. 10)         loss = CE(s + tau log pi, y)                 prediction: argmax_c s_c
    margin: adaptive          loss = log(1 + sum_{j != y} exp(Delta_yj + s_j - s_y)),
    (table 4, with tau = 1)   Delta_yj = log(pi_j / pi_y) + pi_y^(-1/4)    LDAM's margin in addition

Use:
    logit_adjust: {}
    logit_adjust_post_hoc: {form: post_hoc}
    logit_adjust_tau: {form: post_hoc, tau: val}

Suggested values:
* CIFAR-10-LT, CIFAR-100-LT, ImageNet-LT, iNaturalist 2018: tau 1, both forms (paper, table 3).
* ImageNet-GLT: `form: post_hoc`, tau 1 (code of Tang et al., 2022).
* `tau: val` with `form: post_hoc` picks the tau of 0, 0.1, ..., 3 with the best macro recall on the validation split,
  never on test. Classes absent from that split are counted and named in the checkpoint's facts.

Where the authors' code differs:
* It uses log(pi^tau + 1e-12), which saturates for rare classes and large tau; here it is tau * log pi.
* The paper's tau* is the best value on the evaluation set, an oracle; here tau is chosen on the validation split.

Attribution: Menon et al., ICLR 2021, arXiv:2007.07314; authors' code google-research/google-research, folder
logit_adjustment (Apache-2.0 licence). The code here is written from the formulas.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, log_prior
from ltpipe.mathematics.tau import choose_tau

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output


class Config(Spec):
    """Where the adjustment is made, and its strength."""

    form: Literal["loss", "post_hoc"] = Field("loss", description="adjust the loss, or the prediction after training")
    tau: float | Literal["val"] = Field(
        1.0, description="strength, not negative; `val` chooses it on the validation split (only with `form: post_hoc`)"
    )
    margin: Literal["none", "adaptive"] = Field(
        "none", description="`adaptive` adds the margin pi_y^(-1/4) (only with `form: loss`)"
    )

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
    """Keep log pi, the margin (C each) and tau as buffers: the exported prediction may need them."""

    def build(self, features: int) -> "nn.Module":
        import torch
        from torch import nn

        own = nn.Module()
        prior = log_prior(self.problem.prior)
        # `finish` fills in the chosen tau; until then it is 0, and predict() returns the plain logits.
        tau = 0.0 if self.config.tau == "val" else self.config.tau
        own.register_buffer("log_prior", torch.tensor(prior, dtype=torch.float32))
        own.register_buffer("margin", torch.tensor(np.exp(-prior / 4), dtype=torch.float32))  # pi^(-1/4)
        own.register_buffer("tau", torch.tensor(tau))
        return own

    def class_prior_changed(self, prior: "Tensor") -> None:
        self.own.log_prior.copy_(prior.log())
        self.own.margin.copy_(prior**-0.25)

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        """Train nothing if a finished run is adjusted post hoc; otherwise follow the benchmark's schedule."""
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
        choice = choose_tau(lambda tau: val.logits - tau * self.own.log_prior, val.labels, self.problem.classes)
        self.own.tau.fill_(choice["tau"])
        return choice

    def predict(self, out: "Output") -> "Tensor":
        if self.config.form == "loss":
            return out.logits
        return out.logits - self.own.tau * self.own.log_prior
