"""Run: one row of a table, as a parameter block; and the network and method it names. Importable without torch."""

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from ltpipe.methods.base import Method, Problem
from ltpipe.models.spec import PACKAGE as BACKBONES
from ltpipe.models.spec import Model
from ltpipe.specs import Refused, Spec, named

if TYPE_CHECKING:
    from ltpipe.models.network import Network

PACKAGE = "ltpipe.methods"


class Choice(Spec):
    """A method and its options: `method` is a module of ltpipe.methods, `options` its Config block."""

    method: str
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("method")
    @classmethod
    def _exists(cls, method: str) -> str:
        named(PACKAGE, method)
        return method

    @model_validator(mode="after")
    def _options(self) -> "Choice":
        self.config()
        self.base()
        return self

    def config(self) -> Spec:
        """The options as the method's own Config block."""
        config: Spec = named(PACKAGE, self.method).Config.model_validate(self.options)
        return config

    def base(self) -> "Choice | None":
        """The method that `options.base` names, where this method is built around another."""
        value = getattr(self.config(), "base", None)
        if value is None:
            return None
        return Choice(method=value) if isinstance(value, str) else Choice.model_validate(value)

    def modules(self) -> frozenset[str]:
        inner = self.base()
        return frozenset({f"{PACKAGE}.{self.method}"}) | (inner.modules() if inner else frozenset())

    def build(self, problem: Problem, started: bool) -> Method:
        """The method, around its base where it has one."""
        inner = self.base()
        around = inner.build(problem, started) if inner else None
        method: Method = named(PACKAGE, self.method).Method(self.config(), problem, around, started)
        return method


class Run(Choice):
    """One row of a table: a method, the split it trains on, and the run whose weights it starts from, if any.

    schedule: keys in which this run's recipe differs from the benchmark's, e.g. {weight_decay: 2.0e-4}.
    """

    split: str = Field(description="training split of the manifest, e.g. train or train_glt")
    start_from: str | None = Field(None, description="a run of this benchmark; its checkpoint of the same seed")
    schedule: dict[str, Any] = Field(default_factory=dict)


def build(run: Run, model: Model, problem: Problem) -> "tuple[Network, Method]":
    """Network and method as they are before training, on the CPU."""
    from ltpipe.models.network import Network

    method = run.build(problem, run.start_from is not None)
    needs = method.needs()
    if needs.start_from and run.start_from is None:
        raise Refused(f"method {run.method} starts from a finished run: name one in start_from")
    backbone = named(BACKBONES, model.backbone).build(model.config(), needs.branches, needs.narrow)
    network = Network(backbone, method.head(backbone.features), method.build(backbone.features))
    method.own = network.own
    return network, method
