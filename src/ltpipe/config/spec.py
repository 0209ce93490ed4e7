"""Parameter blocks: Spec refuses unknown keys, MenuItem chooses a module by its file name, Refused is a user's error.

The blocks themselves live beside the functions that read them, one block for one consumer. A file with all blocks
would be a code dependency of every stage.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

T = TypeVar("T", bound="Spec")


class Refused(click.ClickException):
    """Bad input: one message that names what, where and the valid choices; exit code 2, and nothing is written."""

    exit_code = 2


class Spec(BaseModel):
    """A frozen block of parameters. An unknown key is an error that lists the valid keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    # keys that a user may write but that are resolved before the block is parsed: name -> description
    read_before: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            unknown = sorted(str(key) for key in value if key not in cls.model_fields)
            if unknown:
                valid = ", ".join([*cls.model_fields, *cls.read_before])
                raise ValueError(f"unknown key {', '.join(unknown)}; valid keys: {valid}")
        return value

    def modules(self) -> frozenset[str]:
        """Return the modules that this block names (method, backbone, source): code that a stage depends on."""
        return frozenset().union(*(block.modules() for block in self._blocks()))

    def files(self) -> frozenset[str]:
        """Return the paths of the user's files that this block names: data that a stage depends on."""
        return frozenset().union(*(block.files() for block in self._blocks()))

    def _blocks(self) -> Iterator["Spec"]:
        """Yield the blocks in this block's fields, also those in lists and mappings."""
        queue = list(self.__dict__.values())
        while queue:
            value = queue.pop()
            if isinstance(value, Spec):
                yield value
            elif isinstance(value, Mapping):
                queue += value.values()
            elif isinstance(value, list | tuple):
                queue += value


class MenuItem(Spec):
    """A block that chooses a module by its file name, with the options of that module's `Config`.

    A subclass states the `menu` (a package that holds nothing but such modules) and the field that has the name.
    """

    menu: ClassVar[str]
    field: ClassVar[str] = "name"

    options: dict[str, Any] = Field(default_factory=dict, description="options of the chosen module")

    @field_validator("*", mode="after")
    @classmethod
    def _on_the_menu(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name == cls.field:
            load_item(cls.menu, value)
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> "MenuItem":
        try:
            self.config()
        except ValidationError as error:
            raise in_options(error) from None
        return self

    def module(self) -> ModuleType:
        """Return the chosen module."""
        return load_item(self.menu, getattr(self, self.field))

    def config(self) -> Spec:
        """Return the options as the chosen module's Config block."""
        config: Spec = self.module().Config.model_validate(self.options)
        return config

    def modules(self) -> frozenset[str]:
        return super().modules() | self.config().modules() | {self.module().__name__}

    def files(self) -> frozenset[str]:
        return super().files() | self.config().files()


def in_options(error: ValidationError) -> ValidationError:
    """Return an error of a module's Config, whose paths begin inside the options, as one of the block around them."""
    return ValidationError.from_exception_data(error.title, [_option_error(line) for line in error.errors()])


def _option_error(line: Any) -> InitErrorDetails:
    error = PydanticCustomError("option", "{message}", {"message": line["msg"]})
    return InitErrorDetails(type=error, loc=("options", *line["loc"]), input=line["input"])


def menu_names(menu: str) -> list[str]:
    """Return the names of a menu's modules, sorted."""
    return sorted(module.name for module in iter_modules(import_module(menu).__path__))


def load_item(menu: str, name: str) -> ModuleType:
    """Import the module `name` of the package `menu`.

    Raises ValueError with the valid names if there is no such file.
    """
    if name not in (valid := menu_names(menu)):
        raise ValueError(f"no {name!r} in {menu}; valid names: {', '.join(valid)}")
    return import_module(f"{menu}.{name}")


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(top)"


def parse(block: type[T], value: Any, where: str) -> T:
    """Return `value` as a `block`. Raises Refused with every error in one message that starts with `where`."""
    try:
        return block.model_validate(value)
    except ValidationError as error:
        lines = [f"  {_path(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise Refused(f"{where}:\n" + "\n".join(lines)) from None
