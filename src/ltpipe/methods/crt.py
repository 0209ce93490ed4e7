"""Classifier re-training (Kang et al., ICLR 2020, cRT): a new head on a finished run's frozen backbone, class-balanced.

The head is initialised anew and trained with class-aware sampling, cosine rate from `lr` to 0. The backbone stays in
eval mode: its batch-norm statistics are those of stage 1. The start may be any finished run with one feature vector an
image, whatever its head.

Where the authors' code differs: it (and that of Tang et al., 2022) leaves the backbone in training mode, so that its
batch-norm statistics drift to the class-balanced stream's; `drift: true` does the same.
"""

from ltpipe.interface import method
from ltpipe.interface.phases import Phase, Retraining
from ltpipe.interface.streams import Stream, class_aware

EXAMPLE = {"epochs": 2}


class Config(Retraining):
    """The second stage."""


class Method(method.Method):
    """One phase, of the head."""

    def needs(self) -> method.Needs:
        return method.Needs(start_from=True, keeps=("backbone",))

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return (self.config.phase(schedule, "head"),)

    def streams(self) -> tuple[Stream, ...]:
        return (class_aware(self.problem, self.config.per_class),)
