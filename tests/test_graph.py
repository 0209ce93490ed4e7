"""docs/graph.md: the stages of dvc.yaml, as DVC itself draws them."""

import subprocess
from pathlib import Path

import pytest
import yaml
from copied_project import BIN

from ltpipe.pages.graph import draw, predecessors, render_graph

ROOT = Path(__file__).parents[1]
STAGES = {
    "b": {"cmd": "run b", "deps": ["data/a", "src"], "outs": [{"data/b/one": {"cache": False}}, "data/b/two"]},
    "a": {"cmd": "run a", "params": [{"data/p.yml": ["key"]}], "metrics": [{"data/a/m.json": {"cache": False}}]},
    "p": {"cmd": "run p", "outs": ["data/p.yml"]},
    "c": {"cmd": "run c", "deps": ["data/b/two/x.csv", "data/bb"]},
}


@pytest.fixture(scope="module")
def stages():
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_the_page_is_what_dvc_yaml_says(stages):
    """Whether dvc.yaml is current is the business of another test."""
    assert (ROOT / "docs/graph.md").read_text() == render_graph(stages)


def test_a_stage_follows_those_that_write_its_files_folders_or_parameters():
    """Also a folder that others write into, and a file in a folder that another one writes."""
    assert predecessors(STAGES) == {"b": ["a"], "a": ["p"], "p": [], "c": ["b"]}


def test_the_picture_has_a_box_for_each_stage_and_an_arrow_for_each_dependency():
    assert draw(predecessors(STAGES)) == [
        "```mermaid",
        "flowchart TD",
        *(f'\tnode{number}["{name}"]' for number, name in enumerate("abcp", start=1)),
        *("\tnode1-->node2", "\tnode2-->node3", "\tnode4-->node1"),
        "```",
    ]


def test_the_table_says_the_same_in_the_order_of_dvc_yaml():
    rows = [line for line in render_graph(STAGES).splitlines() if line.startswith("|")][2:]
    assert rows == ["| b | a | `run b` |", "| a | p | `run a` |", "| p | - | `run p` |", "| c | b | `run c` |"]


@pytest.mark.slow
def test_dvc_draws_the_same_picture(stages):
    """Of the embedded benchmark: a clone in use may have other ledgers in pipelines/dvc."""
    command = [BIN / "dvc", "dag", "--md", "gate-digits_glt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == draw(predecessors(stages))
