"""Bilateral-branch network (Zhou et al., CVPR 2020): one branch for images as they come, one for mostly rare classes.

Two branches share all of the network but its last block. The first sees images drawn equally often, the second sees
images of rare classes more often than those of frequent ones. The weight of the first falls from 1 to 0 during
training. The prediction uses both branches equally.

Formula:
    l    = 1 - ((epoch + offset) / epochs)^2          offset: `epoch_offset`
    s    = 2 (l W_1 z_1 + (1 - l) W_2 z_2)            no bias
    loss = mean_b l CE(s, y_1) + (1 - l) CE(s, y_2)
    prediction: argmax of W_1 z_1 + W_2 z_2           s at l = 1/2

    z_1: from an image of the uniform stream, through branch 1
    z_2: from an image of the reversed stream, through branch 2; probability of class c in proportion to n_max / n_c

Use:
    bbn: {}

Suggested values:
* ImageNet-GLT: `{epoch_offset: -1, draw: replacement}`, and the run's `schedule: {decay: {60: 0.1, 80: 0.01}}` and
  `model: {options: {cardinality: 1, group: 64}}`, which is a ResNet-50, as in the code of Tang et al., 2022.
* Otherwise the defaults.

Where the authors' code differs: the authors' own code was not compared. In the code of Tang et al., 2022:
* l has epoch - 1 (counted from 0) in place of epoch: `epoch_offset: -1`.
* The images of the uniform stream are drawn with replacement too: `draw: replacement`.
* The weights of the convolutions start as torch's default; here by Kaiming, as in this package's other networks.

Cost: both streams have N images, so an epoch shows 2 N images; a step has two batches.

Attribution: Zhou et al., CVPR 2020. The code here is written from the formulas; details come from
KaihuaTang/Generalized-Long-Tailed-Benchmarks.pytorch (non-commercial licence), from which nothing was copied.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch, Stream
from ltpipe.mathematics.losses import mixed_loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output


class Config(Spec):
    """Details of the first stream and of its weight."""

    epoch_offset: int = Field(0, ge=-1, le=0, description="added to the epoch (from 0) in the formula of l")
    draw: Literal["shuffled", "replacement"] = Field(
        "shuffled", description="the uniform stream: every image once, or N draws with replacement"
    )


def reversed_weights(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return sampling weights of images that give class c the probability (1/n_c) / sum_j (1/n_j); N, float64, sum 1.

    labels: class of each training image, N. counts: n_c, C.
    """
    # Squared: each of the n_c images of class c has a share 1/n_c of its class's probability, which goes with 1/n_c.
    weights = 1.0 / counts[labels].astype(np.float64) ** 2
    return np.asarray(weights / weights.sum())


class Method(method.Method):
    """Two streams, each with a full batch for its branch."""

    def needs(self) -> method.Needs:
        return method.Needs(branches=2, private="block", partition_batch=True)

    def head(self, features: int) -> "nn.Module":
        from torch import nn

        from ltpipe.layers.heads import PerExpert

        heads = [nn.Linear(features, self.problem.classes, bias=False) for _ in range(2)]
        for head in heads:  # the halves of one linear layer over the features of both branches
            nn.init.uniform_(head.weight, -((2 * features) ** -0.5), (2 * features) ** -0.5)
        return PerExpert([*heads])

    def streams(self) -> tuple[Stream, ...]:
        import torch

        weights = torch.from_numpy(reversed_weights(self.problem.labels, self.problem.counts))
        uniform = torch.ones_like(weights) if self.config.draw == "replacement" else None
        return (Stream(weights=uniform, own_batch=True), Stream(weights=weights, own_batch=True))

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """Concatenate the images of both streams; `labels` are those of the first stream, `other` of the second."""
        import torch

        first, second = streams
        share = 1 - ((self.clock.epoch + self.config.epoch_offset) / self.clock.epochs) ** 2
        return Batch(torch.cat([first.images, second.images]), first.labels, first.index, second.labels, share)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        assert out.experts is not None and batch.other is not None
        # Row b has the logits of two images: of the uniform stream in branch 0, of the reversed stream in branch 1.
        logits = 2 * (batch.share * out.experts[:, 0] + (1 - batch.share) * out.experts[:, 1])
        return {"loss": mixed_loss(logits, batch.labels, batch.other, batch.share)}

    def predict(self, out: "Output") -> "Tensor":
        assert out.experts is not None
        return out.experts.sum(dim=1)
