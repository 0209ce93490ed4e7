"""Linear probe (Kornblith et al., CVPR 2019): logistic regression on the features of a frozen backbone.

Each training image passes once through the backbone, as it is, without augmentation; its features are kept, and the
linear head is fitted to them by L-BFGS, in seconds. It is the cheapest use of a pretrained backbone (`backbone: timm`
with `weights`), or of a finished run's (`start_from`). The loss is convex, so that the seed changes nothing. With
tau > 0, it is the logit-adjusted loss (Menon et al., ICLR 2021).

Formula:
    u    = (z - mean) / std                           of each feature, over the training images
    s    = W u + b                                    z frozen; W and b new
    loss = mean_b CE(s_b + tau log pi, y_b) + l2 / 2 ||W||^2            prediction: argmax_c s_c

    The exported head has W / std and b - W mean / std. Without a bias (head_bias: false), the mean stays and b = 0.
    l2: val picks the l2 of 1e-6, 1e-5, ..., 10 with the best macro recall on the validation split.

Use:
    linear_probe: {}
    linear_probe_adjusted: {tau: 1.0}

Suggested values: the defaults. tau: 1 where rare classes matter.

Where the authors' code differs: none was released. The paper tries 45 values of l2 between 1e-6 and 1e5, and selects by
accuracy; it does not standardise features.

Cost: one forward pass of training and validation images; fitting ten classes to 2,000 images takes seconds.

Attribution: Kornblith et al., CVPR 2019 (linear classifiers on features, appendix A); Menon et al., ICLR 2021 (tau).
The code here is written from the description.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase
from ltpipe.mathematics.tau import macro_recall

if TYPE_CHECKING:
    from torch import Tensor

    from ltpipe.models.network import Network

# from strong to weak: each fit starts from the one before
STRENGTHS = tuple(10.0**power for power in range(1, -7, -1))
STEPS = 200  # of L-BFGS, at most


class Config(Spec):
    """Loss and weight decay of the head."""

    tau: float = Field(0.0, ge=0, description="strength of the logit adjustment; 0: plain cross-entropy")
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["val"] = Field(
        "val", description="weight decay of W; `val` chooses it by macro recall on the validation split"
    )


class Linear(NamedTuple):
    """A linear layer. weight: W, C x D. bias: b, C."""

    weight: "Tensor"
    bias: "Tensor"


def fit_head(features: "Tensor", labels: "Tensor", shift: "Tensor", l2: float, begin: Linear, bias: bool) -> Linear:
    """Return the W and b with the least loss, by L-BFGS from `begin`.

    features: N x D, standardised. labels: N. shift: tau log pi, C; -inf for a class without images. bias: b is free.
    """
    import torch
    from torch.nn import functional as F

    weight, offset = begin.weight.clone().requires_grad_(), begin.bias.clone().requires_grad_(bias)
    free = [weight, offset] if bias else [weight]
    optimizer = torch.optim.LBFGS(free, max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> "Tensor":
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weight.T + offset + shift, labels) + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Linear(weight.detach(), offset.detach())


def unstandardised(head: Linear, mean: "Tensor", std: "Tensor") -> Linear:
    """Return the head for features as they are, of one for (z - mean) / std; mean, std: D."""
    weight = head.weight / std
    return Linear(weight, head.bias - weight @ mean)


class Method(method.Method):
    """Fit the head when training would end; train nothing before."""

    def needs(self) -> method.Needs:
        return method.Needs(trained_backbone=True, keeps=("backbone",))

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return ()

    def finish(self, network: "Network", embed: method.Embed) -> dict[str, Any]:
        import torch
        from torch import nn

        head = network.head
        assert isinstance(head, nn.Linear)
        has_bias = head.bias is not None
        train, val = method.concatenate(embed("train")), method.concatenate(embed("val"))
        std = train.features.std(dim=0, correction=0)
        # a feature that hardly varies is not enlarged a thousandfold more than the others
        std = std.clamp(min=max(1e-3 * float(std.mean()), 1e-12))
        mean = train.features.mean(dim=0) if has_bias else torch.zeros_like(std)
        prior = torch.tensor(self.problem.prior, dtype=std.dtype, device=std.device)
        # without an adjustment, a class without images has no -inf, which 0 would turn into nan
        shift = self.config.tau * prior.log() if self.config.tau else torch.zeros_like(prior)
        whole, found = Linear(torch.zeros_like(head.weight), torch.zeros_like(prior)), []
        inputs = (train.features - mean) / std
        with torch.enable_grad():
            for l2 in STRENGTHS if self.config.l2 == "val" else (self.config.l2,):
                whole = fit_head(inputs, train.labels, shift, l2, whole, has_bias)
                found.append((l2, unstandardised(whole, mean, std)))
        answers = torch.stack([(val.features @ layer.weight.T + layer.bias).argmax(dim=1) for _, layer in found])
        recall = macro_recall(answers, val.labels, self.problem.classes)
        best = int(recall.argmax())
        with torch.no_grad():
            head.weight.copy_(found[best][1].weight)
            if has_bias:
                head.bias.copy_(found[best][1].bias)
        chosen = {"l2_macro_recall": float(recall[best])} if self.config.l2 == "val" else {}
        return {"l2": found[best][0], **chosen}
