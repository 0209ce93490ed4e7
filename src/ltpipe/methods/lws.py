"""Learnable weight scaling (Kang et al., ICLR 2020, LWS): one scale a class on a finished run's frozen network.

    s_c <- f_c s_c (weight and bias alike), f = 1 at the start, trained with class-aware sampling

Where the authors' code differs: it leaves the backbone in training mode, so that its batch-norm statistics drift to the
class-balanced stream's; `drift: true` does the same.
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
    """The second stage."""


class Method(method.Method):
    """One phase, of the scales."""

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
