"""The shape of the project: layers, what a stage imports, what pipelines/ may contain, no fact of one machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "great_expectations", "onnxruntime", "sklearn", "matplotlib", "pandas")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: tracked files are unknown")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def loaded(code: str) -> set[str]:
    """Top-level modules in sys.modules after `code` in a fresh interpreter."""
    tail = "\nimport sys, json; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def test_import_contracts_hold():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_an_import_against_the_layers_is_noticed(tmp_path):
    import shutil

    for name in ("src", "pipelines", "pyproject.toml"):
        target = tmp_path / name
        shutil.copytree(ROOT / name, target) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, target)
    (tmp_path / "src/ltpipe/methods/ce.py").open("a").write("\nfrom ltpipe.methods import logit_adjust  # noqa\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}/src:{tmp_path}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode != 0 and "A method never imports a method BROKEN" in done.stdout


def test_the_registry_loads_nothing_heavy():
    code = "from ltpipe.pipeline_registry import register_pipelines\nassert register_pipelines()"
    assert not loaded(code) & set(HEAVY)


def test_predict_help_loads_neither_torch_nor_great_expectations():
    code = "from click.testing import CliRunner\nfrom ltpipe.predict import main\n"
    code += "assert CliRunner().invoke(main, ['--help']).exit_code == 0"
    assert not loaded(code) & {"torch", "great_expectations", "onnxruntime", "pandas", "kedro"}


def test_pipelines_hold_wiring_only():
    for path in (ROOT / "pipelines").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert module.partition(".")[0] in {
                    "kedro",
                    "pipelines",
                    "ltpipe",
                    "functools",
                    "typing",
                    "collections",
                }
            if path.name != "__init__.py":
                assert not isinstance(node, ast.If | ast.For | ast.While | ast.Try), f"{path.name}:{node.lineno}"


def test_no_folder_is_a_drawer():
    names = {part for path in tracked() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & {"utils", "util", "common", "core", "helpers", "misc", "scripts"}


def test_top_level_is_as_agreed():
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {"pipelines", "src", "conf", "dvc.yaml", "Dockerfile", "tests", "data"} <= top
    folders = {name for name in top if (ROOT / name).is_dir() and not name.startswith(".")}
    assert folders <= {"pipelines", "src", "conf", "tests", "data", "docs", "benchmarks"}


def test_no_tracked_file_is_large_or_names_a_machine_or_an_index():
    wrong = re.compile(rb"/(?:home|root|work)/\w|files\.pythonhosted\.org|pypi\.org/simple")
    for path in tracked():
        content = path.read_bytes()
        assert len(content) < 1_000_000, path
        if path != Path(__file__):
            assert not wrong.search(content), f"{path}: {wrong.search(content)}"


def test_functions_are_short():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for folder in ("src", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[int(len(lengths) * 0.9)] <= 40


def test_ruff_and_mypy_are_clean():
    bin_folder = Path(sys.executable).parent
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = subprocess.run([bin_folder / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
