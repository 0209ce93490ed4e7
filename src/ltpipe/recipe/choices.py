"""Which optimiser and which learning-rate rule a schedule names. Importable without torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ltpipe.config.spec import MenuItem
from ltpipe.optimisers import Options
from ltpipe.rates import Rate

Choice = TypeVar("Choice", bound=MenuItem)


class OptimiserChoice(MenuItem):
    """An optimiser and its options (`optimiser_options` of the schedule)."""

    menu: ClassVar[str] = "ltpipe.optimisers"
    field: ClassVar[str] = "optimiser"

    optimiser: str = Field(description="a module of ltpipe.optimisers")


class RateChoice(MenuItem):
    """A learning-rate rule and its options (`decay_options` of the schedule)."""

    menu: ClassVar[str] = "ltpipe.rates"
    field: ClassVar[str] = "decay"

    decay: str = Field(description="a module of ltpipe.rates")


def optimiser_of(schedule: Mapping[str, Any]) -> OptimiserChoice:
    """Return the optimiser that the keys of a schedule name. Raises ValidationError, with the schedule's key."""
    values = {"optimiser": schedule["optimiser"], "options": schedule["optimiser_options"]}
    return _chosen(OptimiserChoice, values, "optimiser_options")


def rate_of(schedule: Mapping[str, Any]) -> RateChoice:
    """Return the rule that the keys of a schedule name. Raises ValueError if it is spelled in another way.

    A mapping is the rule `steps`; it has no other spelling, and a rule without a change is `constant`.
    """
    decay, options = schedule["decay"], schedule["decay_options"]
    if decay == "steps":
        raise ValueError(
            "decay: write the epochs and factors of steps themselves, e.g. decay: {160: 0.01, 180: 0.0001}"
        )
    if isinstance(decay, str):
        return _chosen(RateChoice, {"decay": decay, "options": options}, "decay_options")
    if options:
        raise ValueError(f"decay_options: {', '.join(options)}: a mapping in decay has no options")
    if not decay:
        raise ValueError("decay: {} changes nothing: write constant")
    return RateChoice(decay="steps", options={"factors": decay})


def rule(choice: RateChoice) -> Rate:
    """Return the rule with its options."""
    config = choice.config()
    assert isinstance(config, Rate)
    return config


def options(choice: OptimiserChoice) -> Options:
    """Return the options of the optimiser."""
    config = choice.config()
    assert isinstance(config, Options)
    return config


def _chosen(block: type[Choice], values: Mapping[str, Any], key: str) -> Choice:
    """Return the choice; an error in its options is said of the schedule's `key`."""
    try:
        return block.model_validate(values)
    except ValidationError as error:
        details = [
            InitErrorDetails(
                type=PydanticCustomError("choice", "{message}", {"message": line["msg"].removeprefix("Value error, ")}),
                loc=(key, *line["loc"][1:]) if line["loc"][:1] == ("options",) else line["loc"],
                input=line["input"],
            )
            for line in error.errors()
        ]
        raise ValidationError.from_exception_data(error.title, details) from None
