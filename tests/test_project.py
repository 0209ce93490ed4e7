"""Kedro's view of the project: graphs, catalog, parameters, `kedro run`; the projection onto dvc.yaml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

import pipelines
from ltpipe.benchmark import load
from ltpipe.pages.dvc_yaml import TAGS, Projection, dump, text
from ltpipe.pipeline_registry import STAGES, register_pipelines
from ltpipe.storage import provenance
from ltpipe.storage.provenance import has_code, import_closure

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
BENCHMARKS = sorted(path.stem for path in (ROOT / "conf/base/parameters").glob("*.yml"))


def kedro(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run([BIN / "kedro", *arguments], cwd=folder, capture_output=True, text=True, env=env)


def tree(target: Path) -> Path:
    """A copy of the project's configuration, without results; code comes from the installation."""
    shutil.copytree(ROOT / "conf", target / "conf")
    shutil.copy(ROOT / "pyproject.toml", target)
    (target / "src").mkdir()
    return target


@pytest.fixture(scope="module")
def registered():
    os.chdir(ROOT)
    return register_pipelines()


@pytest.fixture(scope="module")
def catalog():
    bootstrap_project(ROOT)
    with KedroSession.create(project_path=ROOT) as session:
        yield session.load_context().catalog


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_a_pipeline_whose_only_free_inputs_are_parameters(registered, name):
    free = {i for i in registered[name].inputs() if not i.startswith("params:")}
    folders = {i for i in free if i.endswith(".scratch") or i.startswith("raw_")}
    kept = {i for i in free if i.endswith((".kept", ".kept_log", ".kept_cost"))}  # of an earlier run, if there was one
    assert free - {f"{name}.accepted"} == folders | kept


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_parameter_of_the_graph_stands_in_the_benchmark_s_file(registered, catalog, name):
    missing = [i for i in registered[name].inputs() if i.startswith("params:") and i not in catalog]
    assert missing == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_everything_that_passes_between_stages_is_a_file(registered, catalog, name):
    for tags in TAGS.values():
        part = registered[name].only_nodes_with_tags(*tags)
        for dataset in (part.inputs() | part.outputs()) - {i for i in part.inputs() if i.startswith("params:")}:
            assert hasattr(catalog.get(dataset), "path"), f"{dataset} is in memory only"


def test_a_stage_has_one_name_the_module_s_that_makes_it_in_kedro_and_in_dvc(registered):
    modules = {path.stem for path in (ROOT / "pipelines").glob("*.py")}
    assert set(STAGES) == modules - {"__init__", "cell"}  # what the stages of a cell have in common
    assert {tag for pipeline in registered.values() for node in pipeline.nodes for tag in node.tags} == set(STAGES)
    assert {stage for stages in TAGS.values() for stage in stages} == set(STAGES) and TAGS.keys() <= set(STAGES)


# the nodes of a benchmark whose training reads whole pictures from their files
WHOLE = {"fetch", "note_contents", "trace", "measure_crops", "pack_exactly", "identify", "open_files"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_no_two_kinds_of_node_read_one_block_but_for_those_that_must_agree(registered, name):
    readers: dict[str, set[str]] = {}
    for node in registered[name].nodes:
        for block in (i for i in node.inputs if i.startswith("params:")):
            readers.setdefault(block, set()).add(node.func.__name__)
    shared = {block: names for block, names in readers.items() if len(names) > 1}
    allowed = [
        {"whole", "state"},
        {"fetch", "pack", "identify"},
        {"fetch", "cluster", "pack", "identify"},
        {"fetch", "trace", "measure_crops", "pack", "identify"},
        WHOLE,
        WHOLE | {"cluster"},
        {"cluster", "identify"},
        {"draw", "identify"},
        {"validate", "identify"},
        {"train", "export", "predict", "measure"},
        {"export", "predict", "measure"},
        {"measure", "judge", "report"},
    ]
    assert all(names in allowed for names in shared.values()), shared


def test_the_report_s_stage_depends_on_its_template_too():
    """The template is no module: the folder stands for it."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    writers = [s for s in stages.values() if "data/08_reporting/digits_glt/report" in s.get("outs", [])]
    assert len(writers) == 1 and "src/ltpipe/evaluation/report" in writers[0]["deps"]
    assert (ROOT / "src/ltpipe/evaluation/report/report.html").is_file()


def test_dvc_yaml_is_what_the_graph_says():
    assert (ROOT / "dvc.yaml").read_text() == text("digits_glt", ROOT), "run: ltpipe generate"


def test_check_notices_an_edited_dvc_yaml(tmp_path):
    for name in ("src", "pipelines", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text().replace("cnn.py", "cnn2.py", 1))
    env = os.environ | {"PYTHONPATH": f"{tmp_path}/src:{tmp_path}"}
    check = [sys.executable, "-m", "ltpipe.dvc_yaml", "--check"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "not what the graph says" in done.stderr


def test_a_train_stage_depends_on_its_own_method_and_on_no_other():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    methods = {
        name: {Path(d).stem for d in stage["deps"] if "/methods/" in d and Path(d).stem not in ("__init__", "base")}
        for name, stage in stages.items()
        if name.startswith("train-")
    }
    assert methods["train-digits_glt-ce"] == {"ce"}
    assert methods["train-digits_glt-logit_adjust"] == {"logit_adjust"}


def test_a_run_that_starts_from_another_depends_on_its_checkpoint():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = stages["train-digits_glt-logit_adjust_post_hoc"]["deps"]
    assert "data/06_models/digits_glt/ce/s1/checkpoint.safetensors" in deps


def test_reported_values_are_read_by_the_stage_report_alone():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        blocks = [key for entry in stage.get("params", []) for keys in entry.values() for key in keys]
        assert any(block.endswith(".reported") for block in blocks) == name.startswith("report-")


def test_the_stage_evaluate_of_a_cell_does_not_depend_on_the_loop():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "src/ltpipe/training" in stages["train-digits_glt-ce"]["deps"]
    assert not [path for path in stages["evaluate-digits_glt-ce"]["deps"] if path.startswith("src/ltpipe/training")]


def test_the_stages_that_read_metrics_depend_on_every_file_of_the_menu_and_the_others_on_none():
    """The files are loaded by name. The folder stands for all of them; without one of them it would not."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    # the gate compares the verdict's state with the present one; of the metrics it has what is imported
    for name, stage in ((name, stage) for name, stage in stages.items() if not name.startswith("gate-")):
        found = [path for path in stage["deps"] if path.startswith("src/ltpipe/evaluation/metrics")]
        assert found == ["src/ltpipe/evaluation/metrics"] * name.startswith(("evaluate-", "report-")), name


def test_a_closure_holds_what_functions_import_and_the_packages_above():
    found = import_closure(["ltpipe.training.train"])
    assert {"ltpipe.training.loop", "ltpipe.storage.weights", "ltpipe.models.network", "ltpipe.training"} <= set(found)
    assert "ltpipe.evaluation.judge" not in found


def test_dvc_knows_nothing_of_scratch_and_of_pages_with_a_time(catalog):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert "scratch" not in str(stages) and "validation.html" not in str(stages)


@pytest.fixture
def stages(registered, catalog):
    """stages(together): the stages of digits_glt, with the seeds of a run in one stage or apart."""

    def make(together):
        spec = load(ROOT / "conf/base", ["digits_glt"])["digits_glt"].model_copy(update={"seeds_together": together})
        return Projection(ROOT, "digits_glt", spec, registered["digits_glt"], catalog).stages()

    return make


def test_a_benchmark_has_two_stages_a_cell_and_five_more(stages):
    spec = load(ROOT / "conf/base")["digits_glt"]
    for together, units in ((False, len(spec.runs) * len(spec.seeds)), (True, len(spec.runs))):
        assert len(stages(together)) == len(["parameters", "fetch", "split", "report", "gate"]) + 2 * units


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_seeds_together_are_the_stages_of_their_cells_in_one(stages, stage):
    """Nothing is lost: the files, parameters and results of the one stage are those of all cells of the run."""
    whole, apart = stages(True)[f"{stage}-digits_glt-ce"], stages(False)
    cells = [cell for name, cell in apart.items() if name.startswith(f"{stage}-digits_glt-ce-")]
    assert len(cells) == 12
    for key in ("deps", "params", "outs", "plots", "metrics"):
        parts = [entry for cell in cells for entry in cell.get(key, [])]
        if key == "params":
            ((file, keys),) = whole[key][0].items()
            assert set(keys) == {name for part in parts for name in part[file]}
        else:
            listed = whole.get(key, [])
            assert all(part in listed for part in parts) and all(entry in parts for entry in listed)


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_the_command_of_seeds_together_runs_the_nodes_of_this_run_alone(registered, stages, stage):
    """The namespace of a run holds its seeds, but no run whose name begins alike, and not the summary."""
    options = dict(word.split("=") for word in stages(True)[f"{stage}-digits_glt-logit_adjust"]["cmd"].split()[2:])
    chosen = registered["digits_glt"].filter(
        tags=options["--tags"].split(","), node_namespaces=[options["--namespaces"]]
    )
    expected = {"train": {"train"}, "evaluate": {"export", "predict", "measure"}}[stage]
    cells = {f"digits_glt.logit_adjust.s{seed}" for seed in range(12)}
    assert {node.name for node in chosen.nodes} == {f"{cell}.{node}" for cell in cells for node in expected}


def test_dvc_yaml_stays_readable_with_twelve_seeds(catalog):
    spec = load(ROOT / "conf/base", ["digits_glt"])["digits_glt"]
    spec = spec.model_copy(update={"seeds": {f"s{seed}": seed for seed in range(12)}})
    stages = Projection(ROOT, "digits_glt", spec, pipelines.benchmark("digits_glt", spec), catalog).stages()
    written = dump(stages)
    assert yaml.safe_load(written) == {"stages": stages}
    assert len(written.splitlines()) < 450
    assert max(map(len, written.splitlines())) < 200


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "conf/base/parameters/digits_glt.yml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 60", "epoch: 60", "schedule: unknown key epoch; valid keys: epochs, batch"),
        ("{method: ce,", "{method: cee,", "no 'cee' in ltpipe.methods; valid names: "),
        ("form: post_hoc", "from: post_hoc", "unknown key from; valid keys: form, tau, margin"),
        ("start_from: ce}", "start_from: ec}", "no run 'ec'; runs: ce, logit_adjust"),
        ("backbone: cnn", "backbone: cnm", "no 'cnm' in ltpipe.backbones; valid names: cnn"),
        ("name: digits,", "name: digit,", "no 'digit' in ltpipe.data.sources; valid names: "),
        ("kind: glt", "kind: gtl", "no 'gtl' in ltpipe.data.splits; valid names: "),
        ("digits_glt:\n", "digits_gtl:\n", "must hold one top-level key, digits_glt"),
    ],
)
def test_a_typo_fails_with_the_valid_names_and_writes_nothing(tmp_path, old, new, message):
    folder = tree(tmp_path)
    edit(folder, old, new)
    done = kedro(folder, "run", "--pipeline=digits_glt")
    assert done.returncode != 0 and message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("option", "ran"),
    [
        ("--pipeline=cifar10_lt", ["cifar10_lt"]),
        ("--pipelines=cifar10_lt", ["cifar10_lt"]),
        ("--pipelines=cifar10_lt,digits_glt", ["cifar10_lt", "digits_glt"]),
    ],
)
def test_a_benchmark_is_named_by_the_old_and_by_the_new_spelling_without_a_warning(tmp_path, option, ran):
    folder = tree(tmp_path)
    done = kedro(folder, "run", option, "--tags=parameters")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.parent.name for path in folder.rglob("data/05_model_input/*/parameters.yml")) == ran


@pytest.mark.parametrize("option", ["--pipeline", "--pipelines"])
def test_both_spellings_name_the_benchmarks_that_there_are(tmp_path, option):
    done = kedro(tree(tmp_path), "run", f"{option}=digits_gtl")
    assert done.returncode == 2 and "no benchmark 'digits_gtl'; benchmarks: " in done.stderr


def test_both_spellings_at_once_are_refused_in_one_line(tmp_path):
    done = kedro(tree(tmp_path), "run", "--pipeline=digits_glt", "--pipelines=cifar10_lt")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.splitlines() == [
        "Error: --pipeline and --pipelines are one option: give one of them; --pipelines=a,b runs several"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("digits_glt.schedule.epoch=1", "schedule: unknown key epoch; valid keys: epochs, batch"),
        ("digits_glt.schedule.epochs=many", "schedule.epochs: Input should be a valid integer"),
        ("digits_gtl.schedule.epochs=1", "parameters of no benchmark: digits_gtl; benchmarks: "),
    ],
)
def test_a_wrong_parameter_of_the_command_line_is_refused(tmp_path, change, message):
    folder = tree(tmp_path)
    done = kedro(folder, "run", "--pipeline=digits_glt", f"--params={change}")
    assert done.returncode != 0 and message in done.stderr
    assert "Traceback" not in done.stderr and not (folder / "data").exists()


def test_conf_local_changes_no_code_that_dvc_watches(tmp_path):
    """dvc.yaml is written from conf/base: it would watch the code of another method."""
    folder = tree(tmp_path)
    (folder / "conf/local").mkdir(exist_ok=True)
    (folder / "conf/local/parameters.yml").write_text("digits_glt: {runs: {ce: {train: {method: focal}}}}\n")
    done = kedro(folder, "run", "--pipeline=digits_glt", "--tags=parameters")
    assert done.returncode == 2 and "modules decide the graph, or what DVC watches" in done.stderr
    look = kedro(folder, "run", "--pipeline=digits_glt", "--tags=parameters", "--params=digits_glt.schedule.epochs=3")
    assert look.returncode == 0, look.stderr


def test_params_of_a_benchmark_that_does_not_run_are_refused(tmp_path):
    done = kedro(tree(tmp_path), "run", "--pipeline=digits_glt", "--params=cifar10_lt.schedule.epoch=1")
    assert done.returncode == 2 and "--params of cifar10_lt, but the command runs digits_glt" in done.stderr


def test_an_environment_that_changes_nothing_of_a_benchmark_is_said(tmp_path):
    done = kedro(tree(tmp_path), "run", "--pipeline=cifar10_lt", "--env=smoke", "--tags=parameters")
    assert done.returncode == 0, done.stderr
    assert "environment smoke changes nothing of cifar10_lt; a file conf/smoke/parameters/cifar10_lt.yml" in done.stderr


NAMES_OF_PARAMETERS = ["parameters.yml", "parameters.json", "parameters_mine/x.yml", "parameters/mine.yaml"]
NAMES_OF_PARAMETERS += ["parameters/deep/er.yml", "sub/parameters.yml", "parameters/cifar10_lt.yml"]


@pytest.mark.parametrize("name", NAMES_OF_PARAMETERS)
def test_every_file_of_an_environment_that_kedro_takes_for_parameters_is_read(tmp_path, name):
    folder = tree(tmp_path)
    path = folder / "conf/local" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"digits_glt": {"schedule": {"epochs": 7}}}\n')
    done = kedro(folder, "run", "--pipeline=digits_glt", "--tags=parameters")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((folder / "data/05_model_input/digits_glt/parameters.yml").read_text())
    assert written["schedule"]["epochs"] == 7


def test_a_module_without_a_docstring_is_code_and_a_docstring_alone_is_not(tmp_path):
    for name, content, code in (("a", '"""Words."""\n', False), ("b", "from math import pi\n", True), ("c", "", False)):
        (tmp_path / f"{name}.py").write_text(content)
        assert has_code(tmp_path / f"{name}.py") == code


def test_a_docstring_alone_is_no_part_of_a_result_s_identity_as_dvc_does_not_see_it(monkeypatch, tmp_path):
    words, code = tmp_path / "words.py", tmp_path / "code.py"
    monkeypatch.setattr(provenance, "import_closure", sorted)
    monkeypatch.setattr(provenance, "source_path", lambda module: tmp_path / f"{module}.py")
    words.write_text('"""Words."""\n')
    code.write_text("x = 1\n")
    before = provenance.code_version(["words", "code"])
    words.write_text('"""Other words."""\n')
    assert provenance.code_version(["words", "code"]) == before
    code.write_text("x = 2\n")
    assert provenance.code_version(["words", "code"]) != before


def test_conf_local_says_where_a_machine_keeps_its_data(tmp_path):
    folder = tree(tmp_path)
    (folder / "conf/local").mkdir(exist_ok=True)
    (folder / "conf/local/parameters.yml").write_text("imagenet_lt: {source: {options: {root: /nowhere/at/all}}}\n")
    done = kedro(folder, "run", "--pipeline=imagenet_lt", "--tags=fetch,cluster,split")
    assert done.returncode == 2 and "/nowhere/at/all" in done.stderr


def test_a_benchmark_without_its_data_says_what_to_get_and_where_to_put_it(tmp_path):
    done = kedro(tree(tmp_path), "run", "--pipeline=imagenet_glt")
    assert done.returncode == 2
    for words in ("image-net.org", "138 GB", "terms", "LTPIPE_IMAGENET2012", "conf/local"):
        assert words in done.stderr


def test_an_unknown_pipeline_is_refused(tmp_path):
    done = kedro(tree(tmp_path), "run", "--pipeline=nope")
    assert done.returncode != 0 and "nope" in done.stderr


def test_pipeline_option_is_quiet_and_lists_go_to_standard_output():
    done = kedro(ROOT, "registry", "list")
    assert done.returncode == 0 and "digits_glt" in done.stdout
    assert "deprecat" not in done.stderr.lower()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tree(tmp_path_factory.mktemp("smoke"))
    shutil.rmtree(folder / "conf/accepted")
    edit(folder, ", ".join(f"s{seed}: {seed}" for seed in range(12)), "s0: 0")
    edit(folder, "  gate: {", "  gate: {against: nothing, ")
    done = kedro(folder, "run", "--pipeline=digits_glt", "--env=smoke")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_smoke_environment_runs_the_whole_graph_and_judges_nothing_visibly(smoke):
    report = (smoke / "data/look/smoke/08_reporting/digits_glt/report/report.md").read_text()
    assert "judges nothing" in report and "not judged" in report
    assert not (smoke / "data/08_reporting").exists()


def test_evaluate_alone_loads_no_torch_and_no_great_expectations(smoke):
    code = (
        "import sys\nfrom pathlib import Path\nfrom kedro.framework.session import KedroSession\n"
        "from kedro.framework.startup import bootstrap_project\nbootstrap_project(Path.cwd())\n"
        "with KedroSession.create(project_path=Path.cwd(), env='smoke') as session:\n"
        "    session.run(pipeline_names=['digits_glt'], tags=['evaluate'])\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'great_expectations', 'onnxruntime'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=smoke, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['onnxruntime']"


def test_one_cell_alone_runs_from_its_files(smoke):
    cell = smoke / "data/look/smoke/08_reporting/digits_glt/ce/s0"
    before = (cell / "metrics.json").read_bytes()
    (cell / "metrics.json").unlink()
    done = kedro(
        smoke, "run", "--pipeline=digits_glt", "--env=smoke", "--namespaces=digits_glt.ce.s0", "--tags=evaluate"
    )
    assert done.returncode == 0, done.stderr
    assert (cell / "metrics.json").read_bytes() == before


def test_predict_answers_for_image_files(smoke, tmp_path):
    import numpy as np
    from PIL import Image

    images = np.load(smoke / "data/look/smoke/05_model_input/digits_glt/images.npy")
    for number in range(3):
        Image.fromarray(images[number]).save(tmp_path / f"{number}.png")
    model = smoke / "data/look/smoke/06_models/digits_glt/ce/s0/model.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "ltpipe.predict", model, tmp_path, "--out", tmp_path / "out.csv"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "path,label,class,probability" and len(lines) == 4


def test_models_hold_no_path_of_the_machine_and_state_their_opset(smoke):
    import onnx

    path = smoke / "data/look/smoke/06_models/digits_glt/ce/s0/model.onnx"
    content = path.read_bytes()
    assert str(ROOT).encode() not in content and b"site-packages" not in content
    model = onnx.load(path)
    assert [o.version for o in model.opset_import if o.domain == ""] == [20]
    facts = {entry.key for entry in model.metadata_props}
    assert {f"ltpipe.{name}" for name in ("classes", "cell", "seed", "data", "code", "preprocessing")} <= facts
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
