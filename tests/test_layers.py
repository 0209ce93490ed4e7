"""The shape of the project: layers, what a stage imports, what pipelines/ may contain, no fact of one machine."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
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


def rank(module: str, layers: list[str]) -> int:
    """Place of a module's room in the layers, 0 at the top."""
    room = module.split(".")[1]
    return next(number for number, layer in enumerate(layers) if room in re.split(r"[ |:]+", layer))


def subclasses(block: type) -> list[type]:
    return [inner for direct in block.__subclasses__() for inner in (direct, *subclasses(direct))]


def test_what_is_loaded_by_name_stands_below_the_block_that_names_it():
    """import-linter cannot see it: a block names a menu in a text."""
    import ltpipe.benchmark  # noqa: F401 - defines every block
    from ltpipe.config.spec import MenuItem

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = contracts[0]["layers"]
    named = {(block.__module__, block.menu) for block in subclasses(MenuItem) if hasattr(block, "menu")}
    menus = {menu for _, menu in named}
    assert menus == {
        "ltpipe.methods",
        "ltpipe.backbones",
        "ltpipe.features",
        "ltpipe.optimisers",
        "ltpipe.rates",
        "ltpipe.data.sources",
        "ltpipe.data.splits",
    }
    for module, menu in named:
        if menu.startswith("ltpipe.data."):  # inside data: data.split names data.splits, data.source data.sources
            layers_of_data = next(c["layers"] for c in contracts if c.get("containers") == ["ltpipe.data"])
            assert rank(module.removeprefix("ltpipe."), layers_of_data) < rank(
                menu.removeprefix("ltpipe."), layers_of_data
            )
        else:
            assert rank(module, layers) < rank(menu, layers), f"{module} names {menu}, which stands above it"


def test_a_module_without_a_place_is_noticed(tmp_path):
    """The contract is exhaustive: a new file in the root has to be given a layer."""
    for name in ("src", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src/ltpipe/odds_and_ends.py").write_text('"""No place."""\n')
    environment = {"PYTHONPATH": f"{tmp_path}/src:{tmp_path}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode != 0 and "odds_and_ends" in done.stdout


def test_the_root_holds_kedros_modules_and_the_commands_that_people_type():
    from ltpipe.commands import VERBS

    kedro = {"settings", "pipeline_registry", "hooks", "benchmark", "session", "cli"}
    kedro |= {"view", "viz", "previewed", "tracking"}  # what looks at the graph and at its results
    older = {"dvc_yaml"}  # python -m ltpipe.dvc_yaml
    node = {"state"}  # of a whole benchmark, which no room below knows
    modules = {path.stem for path in (ROOT / "src/ltpipe").glob("*.py")} - {"__init__", "__main__"}
    assert modules == kedro | older | node | set(VERBS) | {"commands"}


def test_help_starts_no_verb():
    code = "from click.testing import CliRunner\nfrom ltpipe.commands import main\n"
    code += "assert CliRunner().invoke(main, ['--help']).exit_code == 0"
    assert not loaded(code) & {"torch", "kedro", "numpy", "pydantic", "yaml"}


def test_the_registry_loads_nothing_heavy():
    code = "from ltpipe.pipeline_registry import register_pipelines\nassert register_pipelines()"
    assert not loaded(code) & set(HEAVY)


def test_predict_help_loads_neither_torch_nor_great_expectations():
    code = "from click.testing import CliRunner\nfrom ltpipe.predict import command as main\n"
    code += "assert CliRunner().invoke(main, ['--help']).exit_code == 0"
    assert not loaded(code) & {"torch", "great_expectations", "onnxruntime", "pandas", "kedro"}


def test_predicting_needs_only_the_packages_of_the_serving_image():
    third = packages_distributions()
    names = loaded("import ltpipe.predict, onnxruntime, PIL.Image, tqdm") & set(third)
    owners = {owner.lower().replace("_", "-") for name in names for owner in third[name]}
    lock = (ROOT / "requirements.serve.lock").read_text()
    served = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    # the CUDA build of onnxruntime is here what the CPU build is there
    assert {"numpy", "pydantic"} <= owners <= served | {"ltpipe", "onnxruntime-gpu"} | INTERPRETER


INTERPRETER = {"setuptools"}  # its .pth files are run at every start of Python, where it is installed


def test_a_verb_whose_package_is_missing_says_so_in_one_message():
    code = "import sys; sys.modules['numpy'] = None\nfrom ltpipe.commands import main\nmain(['predict', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "needs the package numpy, which is not installed here" in done.stderr


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


@pytest.mark.parametrize("module", ["accept", "generate", "predict", "train", "training", "dvc_yaml"])
def test_the_older_spelling_of_a_command_works(module):
    done = subprocess.run(
        [sys.executable, "-m", f"ltpipe.{module}", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Usage: " in done.stdout, done.stderr
