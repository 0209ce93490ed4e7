"""Learnable weight scaling (Kang et al., ICLR 2020, LWS): one learned scale for each class on a finished run's network.

Backbone and head of a finished run are frozen. One factor for each class is learned, which multiplies the class's logit
(weight and bias alike). Training uses class-aware sampling: the class is drawn first, each class equally often, then
its images.

Formula:
    s_c  <- f_c s_c                                   f = 1 at the start
    loss = mean_b CE(s_b, y_b)                        P(y_b = c) = 1 / C; prediction: argmax_c s_c

Use:
    lws: {}

Suggested values:
* ImageNet-LT: 5 epochs (authors' code); the benchmark here has `{lr: 0.2, epochs: 5}`.
* ImageNet-GLT: `drift: true`, and the defaults (code of Tang et al., 2022: 10 epochs, lr 0.1, 4 images of each class).

Where the authors' code differs: it leaves the backbone in training mode, so that its batch-norm statistics drift to
those of the class-balanced stream; so does the code of Tang et al., 2022. `drift: true` does the same.

Cost: only the second stage is counted; the finished run comes before it.

Attribution: Kang et al., ICLR 2020; authors' code facebookresearch/classifier-balancing (BSD-style licence). The code
here is written from the formula.
"""

from typing import TYPE_CHECKING

from ltpipe.interface import method
from ltpipe.interface.phases import Phase, Retraining
from ltpipe.interface.streams import Batch, Stream, class_aware

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output

EXAMPLE = {"epochs": 2}


class Config(Retraining):
    """Recipe of the second stage."""


class Method(method.Method):
    """Train the scales, C, in one phase."""

    def needs(self) -> method.Needs:
        return method.Needs(start_from=True)

    def build(self, features: int) -> "nn.Module":
        import torch
        from torch import nn

        own = nn.Module()
        own.scale = nn.Parameter(torch.ones(self.problem.classes))
        return own

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return (self.config.phase(schedule, "own"),)

    def streams(self) -> tuple[Stream, ...]:
        return (class_aware(self.problem, self.config.per_class),)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        from torch.nn import functional as F

        return {"loss": F.cross_entropy(self.predict(out), batch.labels)}

    def predict(self, out: "Output") -> "Tensor":
        return self.own.scale * out.logits
