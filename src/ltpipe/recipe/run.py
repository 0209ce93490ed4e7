"""Run: the parameter block of a row of the result tables, and the network that it trains.

Importable without torch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from ltpipe.config.spec import MenuItem, Refused, load_item, menu_names
from ltpipe.interface.method import Method, Needs
from ltpipe.interface.streams import Problem
from ltpipe.models.model import Model

if TYPE_CHECKING:
    from ltpipe.models.network import Network
    from ltpipe.models.servable import Servable


class MethodChoice(MenuItem):
    """A method and its options."""

    menu: ClassVar[str] = "ltpipe.methods"
    field: ClassVar[str] = "method"

    method: str = Field(description="a module of ltpipe.methods")

    def base(self) -> "MethodChoice | None":
        """Return the method that `options.base` names, if this method is built around another one."""
        value = getattr(self.config(), "base", None)  # a method's name, or a block with `method` and `options`
        if value is None:
            return None
        return MethodChoice(method=value) if isinstance(value, str) else MethodChoice.model_validate(value)

    def modules(self) -> frozenset[str]:
        inner = self.base()
        return super().modules() | (inner.modules() if inner else frozenset())

    def build(self, problem: Problem, started: bool) -> Method:
        """Return the method, built around its base if it has one."""
        inner = self.base()
        base = inner.build(problem, started) if inner else None
        method: Method = self.module().Method(self.config(), problem, base, started)
        return method


class Run(MethodChoice):
    """A method, the split it trains on, and the run whose weights it starts from, if any."""

    split: str = Field("train", description="training split of the manifest, e.g. train_glt")
    start_from: str | None = Field(None, description="a run of this benchmark; its checkpoint of the same seed")
    schedule: dict[str, Any] = Field(
        default_factory=dict, description="keys in which this run's recipe differs, e.g. {weight_decay: 2.0e-4}"
    )
    model: dict[str, Any] = Field(
        default_factory=dict, description="keys in which this run's network differs: backbone, options, head_bias"
    )

    def modules(self) -> frozenset[str]:
        own = self.model.get("backbone")
        return super().modules() | (frozenset({f"{Model.menu}.{own}"}) if own else frozenset())

    def needs(self, classes: int) -> Needs:
        """Return what the method requires of the network; of `classes` classes."""
        # two images of each class are enough to build the method
        problem = Problem(np.repeat(np.arange(classes), 2), classes)
        return self.build(problem, self.start_from is not None).needs()


def require_branches(run: Run, model: Model, needs: Needs) -> None:
    """Raise Refused if the method needs branches on a common trunk, and the run's backbone cannot be cut into them."""
    model = model.with_changes(run.model)
    if needs.branches > 1 and needs.private != "all" and getattr(model.module(), "WHOLE", False):
        others = [name for name in menu_names(Model.menu) if not hasattr(load_item(Model.menu, name), "WHOLE")]
        raise Refused(
            f"method {run.method} needs {needs.branches} branches on a common trunk, into which backbone "
            f"{model.backbone} cannot be cut; state another one for this run, in its block model: {', '.join(others)}"
        )


def require_trained_backbone(run: Run, model: Model, needs: Needs) -> None:
    """Raise Refused if the method trains no backbone, and the run has none that is trained."""
    if needs.trained_backbone and run.start_from is None and model.with_changes(run.model).seen() is None:
        raise Refused(
            f"method {run.method} leaves the backbone as it is: name a finished run in start_from, or weights "
            "(model: backbone timm, options weights)"
        )


def build_network(run: Run, model: Model, problem: Problem) -> "tuple[Network, Method]":
    """Return network and method as they are before training, on the CPU.

    Raises Refused if the method needs a finished run to start from, and `run` names none.
    """
    from ltpipe.models.network import Network

    model = model.with_changes(run.model)
    method = run.build(replace(problem, head_bias=model.head_bias), run.start_from is not None)
    needs = method.needs()
    if needs.start_from and run.start_from is None:
        raise Refused(f"method {run.method} starts from a finished run: name one in start_from")
    require_branches(run, model, needs)
    backbone = model.module().build(model.config(), needs.branches, needs.narrow, needs.private, model.image)
    network = Network(backbone, method.head(backbone.features), method.build(backbone.features))
    method.own = network.own
    return network, method


def untrained(run: Run, model: Model, counts: Sequence[int]) -> "Servable":
    """Return the servable network of a run before training, in eval mode, on the CPU; counts: images of each class."""
    from ltpipe.models.servable import Servable

    # A checkpoint has class counts but not the labels in their order, on which the network does not depend.
    network, method = build_network(run, model, Problem(np.repeat(np.arange(len(counts)), counts), len(counts)))
    return Servable(network, method.predict, model).eval()


def rebuild(checkpoint: bytes, run: Run, model: Model) -> "tuple[Servable, dict[str, Any]]":
    """Return the network of a checkpoint, with preprocessing and predict(), and the checkpoint's provenance.

    In eval mode, on the CPU. Raises RuntimeError (torch's) if the weights do not fit the network.
    """
    from ltpipe.storage.weights import unpack_weights

    weights, facts = unpack_weights(checkpoint)
    servable = untrained(run, model, facts["classes_counts"])
    servable.network.load_state_dict(weights)
    return servable, facts
