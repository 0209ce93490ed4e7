"""Classifier re-training (Kang et al., ICLR 2020, cRT): a new head on a finished run's frozen backbone, class-balanced.

The backbone of a finished run is frozen, the linear head is initialised anew and trained with class-aware sampling: the
class is drawn first, each class equally often, then its images. The learning rate falls from `lr` to 0 by a cosine. The
finished run may be any with one feature vector per image, whatever its head. The backbone stays in eval mode, so that
its batch-norm statistics are those of the finished run.

Formula:
    s    = W z + b                                    z frozen; W and b new
    loss = mean_b CE(s_b, y_b)                        P(y_b = c) = 1 / C; prediction: argmax_c s_c

Use:
    crt: {}

Suggested values:
* ImageNet-LT: `lr: 0.2`, 10 epochs (authors' code; weight decay 5e-4, batch 512).
* ImageNet-GLT: `drift: true`, and the defaults (code of Tang et al., 2022: 10 epochs, lr 0.1, 4 images of each class).

Where the authors' code differs:
* It leaves the backbone in training mode, so that its batch-norm statistics drift to those of the class-balanced
  stream; so does the code of Tang et al., 2022. `drift: true` does the same.
* Its epochs on ImageNet-LT have N images. Here they have min(n_max C, 4 N), as in the code of Tang et al., 2022.

Cost: only the second stage is counted; the finished run comes before it.

Attribution: Kang et al., ICLR 2020; authors' code facebookresearch/classifier-balancing (BSD-style licence). The code
here is written from the description of the method.
"""

from ltpipe.interface import method
from ltpipe.interface.phases import Phase, Retraining
from ltpipe.interface.streams import Stream, class_aware

EXAMPLE = {"epochs": 2}


class Config(Retraining):
    """Recipe of the second stage."""


class Method(method.Method):
    """Train a new head in one phase."""

    def needs(self) -> method.Needs:
        return method.Needs(start_from=True, keeps=("backbone",))

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return (self.config.phase(schedule, "head"),)

    def streams(self) -> tuple[Stream, ...]:
        return (class_aware(self.problem, self.config.per_class),)
