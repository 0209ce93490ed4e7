"""Spec: the frozen parameter block that refuses unknown keys, and Refused: the error that a user can act on.

The blocks themselves live beside the functions that read them (one block, one consumer), because a file of all
blocks would be a code dependency of every stage.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

T = TypeVar("T", bound="Spec")


class Refused(click.ClickException):
    """Bad input: one message that names what, where and the valid choices; exit code 2 and nothing written."""

    exit_code = 2


class Spec(BaseModel):
    """A frozen block of parameters; an unknown key is an error that lists the valid ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            unknown = sorted(str(key) for key in value if key not in cls.model_fields)
            if unknown:
                raise ValueError(f"unknown key {', '.join(unknown)}; valid keys: {', '.join(cls.model_fields)}")
        return value

    def modules(self) -> frozenset[str]:
        """Names of the modules that this block names (method, backbone, source): code a stage depends on."""
        blocks = [value for value in self.__dict__.values() if isinstance(value, Spec)]
        return frozenset().union(*(block.modules() for block in blocks))

    def files(self) -> frozenset[str]:
        """Paths of the user's files that this block names: data that a stage depends on."""
        blocks = [value for value in self.__dict__.values() if isinstance(value, Spec)]
        return frozenset().union(*(block.files() for block in blocks))


def named(package: str, name: str) -> ModuleType:
    """The module `name` of `package`: the file name is the name.

    Raises ValueError with the valid names where there is no such file.
    """
    names = sorted(m.name for m in iter_modules(import_module(package).__path__) if m.name != "base")
    if name not in names:
        raise ValueError(f"no {name!r} in {package}; valid names: {', '.join(names)}")
    return import_module(f"{package}.{name}")


def parse(block: type[T], value: Any, where: str) -> T:
    """`value` as a `block`; every error in one message that starts with `where`."""
    try:
        return block.model_validate(value)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(p) for p in e['loc']) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise Refused(f"{where}:\n" + "\n".join(lines)) from None
