"""Parameter blocks refuse what they do not know, and say what they do know."""

import re
from importlib import import_module

import click
import pytest
from pydantic import Field, ValidationError

from ltpipe.config.spec import Refused, Spec, load_item, menu_names, parse
from ltpipe.data.split import Split

MENUS = [
    "ltpipe.methods",
    "ltpipe.backbones",
    "ltpipe.data.sources",
    "ltpipe.data.splits",
    "ltpipe.features",
    "ltpipe.optimisers",
    "ltpipe.rates",
]


class Inner(Spec):
    width: int = Field(gt=0)
    depth: int = 1


class Outer(Spec):
    inner: Inner
    name: str = "x"


class Naming(Spec):
    def modules(self):
        return frozenset({"ltpipe.methods.ce"})


class Both(Spec):
    first: Naming = Naming()
    second: Inner = Inner(width=1)


def test_an_unknown_key_is_refused_with_the_valid_keys():
    with pytest.raises(Refused) as refused:
        parse(Inner, {"widht": 3}, "conf.yml, model")
    assert "unknown key widht; valid keys: width, depth" in refused.value.message


def test_every_unknown_key_is_named():
    with pytest.raises(Refused, match="unknown key a, b; valid keys: width, depth"):
        parse(Inner, {"b": 1, "width": 3, "a": 2}, "model")


def test_a_refusal_says_where_and_what():
    with pytest.raises(Refused) as refused:
        parse(Outer, {"inner": {"width": 0}, "name": 3}, "conf.yml, model")
    lines = refused.value.message.splitlines()
    assert lines[0] == "conf.yml, model:"
    assert lines[1].startswith("  inner.width: Input should be greater than 0")
    assert lines[2].startswith("  name: Input should be a valid string")


def test_an_unknown_key_of_an_inner_block_is_found_by_its_path():
    with pytest.raises(Refused, match=r"  inner: .*unknown key widht; valid keys: width, depth"):
        parse(Outer, {"inner": {"widht": 3}}, "model")


@pytest.mark.parametrize("value", [None, 3, "text", [1]])
def test_what_is_not_a_block_is_refused(value):
    with pytest.raises(Refused, match="model:\n  \\(top\\): "):
        parse(Inner, value, "model")


def test_a_key_that_is_not_text_is_refused_and_not_a_crash():
    with pytest.raises(Refused, match="unknown key 3"):
        parse(Inner, {3: 1, "width": 1}, "model")


def test_a_block_cannot_be_changed():
    block = Inner(width=3)
    with pytest.raises(ValidationError, match="frozen"):
        block.width = 4


def test_defaults_fill_what_is_not_stated():
    assert parse(Inner, {"width": 3}, "model") == Inner(width=3, depth=1)


def test_a_refusal_is_two_lines_and_exit_code_2_on_the_command_line():
    assert issubclass(Refused, click.ClickException)
    assert Refused("x").exit_code == 2


def test_a_block_names_the_modules_of_its_blocks():
    assert Inner(width=1).modules() == frozenset()
    assert Both().modules() == {"ltpipe.methods.ce"}


def test_a_block_names_the_modules_and_files_of_blocks_in_lists_and_mappings():
    class Listing(Spec):
        path: str = "x.txt"

        def files(self):
            return frozenset({self.path})

    class Holder(Spec):
        named: dict[str, Listing] = Field({"a": Listing(), "b": Listing(path="y.txt")})
        listed: tuple[Naming, ...] = (Naming(),)

    assert Holder().files() == {"x.txt", "y.txt"} and Holder().modules() == {"ltpipe.methods.ce"}


def test_a_list_file_of_the_user_is_a_file_that_the_split_depends_on():
    splits = {"train": {"role": "train", "list": "mine.txt"}, "test": {"role": "test", "official": "test"}}
    options = {"splits": splits, "groups": {"by": "count", "many": 2, "medium": 1}}
    assert Split(kind="official_lists", options=options).files() == {"mine.txt"}


def test_a_module_is_found_by_its_file_name():
    assert load_item("ltpipe.methods", "ce").__name__ == "ltpipe.methods.ce"


@pytest.mark.parametrize("name", ["cee", "", "ce.x", "../specs", "__init__"])
def test_an_unknown_name_is_refused_with_the_valid_names(name):
    with pytest.raises(ValueError, match=r"in ltpipe\.methods; valid names: .*ce.*logit_adjust"):
        load_item("ltpipe.methods", name)


@pytest.mark.parametrize("menu", MENUS)
def test_a_menu_holds_nothing_but_its_items(menu):
    """Every module of a menu has what its package's docstring promises; so no code has to leave one out."""
    promised = re.findall(r"^(?: {4})?(\w+)\(", import_module(menu).__doc__ or "", re.MULTILINE)
    assert promised
    for name in menu_names(menu):
        module = load_item(menu, name)
        assert hasattr(module, "Config") and issubclass(module.Config, Spec), name
        assert all(hasattr(module, function) for function in promised), name
