"""`kedro viz`: a box for each stage and run, layers, previews; a page that is built and read without a network."""

import base64
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pipelines
from ltpipe import previewed
from ltpipe.pipeline_registry import STAGES
from ltpipe.view import view
from ltpipe.viz import Viz

KEDRO = str(Path(sys.executable).parent / "kedro")
NEEDS_VIZ = pytest.mark.skipif(find_spec("kedro_viz") is None, reason="Kedro-Viz is not installed: uv sync --group viz")
BOXES = {"parameters", "fetch", "split", "ce", "logit_adjust", "logit_adjust_post_hoc", "report", "gate"}
# notes every look-up of an address and every connection of the processes that start with it
WITNESS = """import sys
def note(event, arguments):
    local = event == "socket.connect" and not isinstance(arguments[1], tuple)
    if event in ("socket.connect", "socket.getaddrinfo") and not local:
        open({path!r}, "a").write(f"{event} {arguments}\\n")
sys.addaudithook(note)
"""


@pytest.fixture
def drawn(spec):
    graph = pipelines.benchmark("digits_glt", spec)
    return graph, view(graph, "digits_glt", {run: spec.seeds_of(run) for run in spec.runs}, STAGES)


def test_a_box_is_a_run_or_a_stage_and_holds_one_seed(drawn):
    graph, shown = drawn
    assert {node.namespace for node in shown.nodes} == BOXES
    inside = sorted(node.name for node in shown.nodes if node.namespace == "ce")
    cell = [f"digits_glt.ce.s0.{stage}" for stage in ("export", "measure", "predict", "train")]
    assert inside == [*cell, "digits_glt.ce.summarise"]
    assert {node.name for node in shown.nodes} < {node.name for node in graph.nodes}  # as `kedro run` knows them
    assert not [name for name in shown.datasets() if ".s1." in name or name.endswith((".kept", ".scratch"))]


def test_no_box_leads_back_into_another(drawn):
    """Kedro-Viz would leave out arrows of a circle without a word."""
    _, shown = drawn
    made = {name: node.namespace for node in shown.nodes for name in node.outputs}
    leads = {(made[name], node.namespace) for node in shown.nodes for name in node.inputs if name in made}
    order = ["parameters", "fetch", "split", "logit_adjust", "ce", "logit_adjust_post_hoc", "report", "gate"]
    assert all(order.index(before) <= order.index(after) for before, after in leads)


def test_a_view_shows_the_stage_s_own_code_and_cannot_be_run(drawn):
    node = next(node for node in drawn[1].nodes if node.name == "digits_glt.ce.s0.train")
    assert node.func.__wrapped__.__name__ == "train" and node.func.__code__.co_filename.endswith("training/train.py")
    with pytest.raises(NotImplementedError):
        node.func()


def test_previews_are_values_of_json_and_none_without_a_file(tmp_path):
    made = {kind: getattr(previewed, kind)(str(tmp_path / kind)) for kind in ("Csv", "Parquet", "Curves", "Images")}
    made["Json"] = previewed.Json(str(tmp_path / "Json"))
    assert [dataset.preview() for dataset in made.values()] == [None] * 5
    table = pd.DataFrame({"epoch": range(50), "ce": [np.nan, *range(49)]})
    for kind in ("Csv", "Parquet", "Curves"):
        made[kind].save(table)
    for kind in ("Csv", "Parquet"):
        head = made[kind].preview()
        assert head["columns"] == ["epoch", "ce"] and head["data"][:2] == [[0, None], [1, 0]]
        assert len(head["data"]) == previewed.ROWS
    [curve] = made["Curves"].preview()["data"]
    assert curve["name"] == "ce" and curve["x"][:2] == [0, 1] and curve["y"][:2] == [None, 0]
    made["Json"].save({"a": 1})
    assert json.loads(made["Json"].preview()) == {"a": 1}
    made["Json"].save("x" * previewed.LARGEST)
    assert made["Json"].preview() is None


def test_a_preview_of_images_is_a_sheet_and_of_a_report_its_picture(tmp_path):
    images = previewed.Images(str(tmp_path / "images.npy"))
    pixels = np.zeros((500, 4, 6, 3), np.uint8)
    pixels[-1] = 255  # the last one is in the last place
    images.save(pixels)
    sheet = np.asarray(Image.open(BytesIO(base64.b64decode(images.preview()))))
    assert sheet.shape == (4 * previewed.SHEET, 6 * previewed.SHEET, 3)
    assert (sheet[-4:, -6:] == 255).all() and sheet.sum() == 255 * 4 * 6 * 3
    report = previewed.Report(str(tmp_path / "report"))
    assert report.preview("classes.png") is None
    report.save({"classes.png": b"png"})
    assert base64.b64decode(report.preview("classes.png")) == b"png"


def test_kedro_viz_chooses_by_the_name_of_what_a_preview_returns():
    for kind, name in {
        "Csv": "Table",
        "Json": "JSON",
        "Curves": "Plotly",
        "Images": "Image",
        "Report": "Image",
    }.items():
        assert getattr(previewed, kind).preview.__annotations__["return"].__name__ == f"{name}Preview"


OURS, OTHER = SimpleNamespace(package_name="ltpipe"), SimpleNamespace(package_name="other")


@pytest.mark.parametrize(
    ("project", "arguments"),
    [(OURS, ["run"]), (OURS, ["viz", "build", "--help"]), (OURS, []), (OTHER, ["viz", "build"]), (None, ["viz"])],
)
def test_other_commands_and_projects_are_left_as_they_are(project, arguments, monkeypatch):
    monkeypatch.delenv("LTPIPE_VIEW", raising=False)
    before = list(arguments)
    Viz().before_command_run(project, arguments)
    Viz().after_command_run(project, arguments)
    assert arguments == before and "LTPIPE_VIEW" not in os.environ


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["viz"], ["viz", "run", "--include-hooks"]),
        (["viz", "run", "--no-browser"], ["viz", "run", "--no-browser", "--include-hooks"]),
        (["viz", "run", "--include-hooks"], ["viz", "run", "--include-hooks"]),
    ],
)
def test_kedro_viz_runs_with_hooks_and_the_view(typed, parsed, monkeypatch):
    monkeypatch.setenv("LTPIPE_VIEW", "")
    monkeypatch.setattr("ltpipe.viz.find_spec", lambda name: name)
    Viz().before_command_run(OURS, typed)
    assert typed == parsed and os.environ["LTPIPE_VIEW"] == "1"


def test_without_the_package_a_message_says_what_installs_it(monkeypatch, capsys):
    monkeypatch.setattr("ltpipe.viz.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        Viz().before_command_run(OURS, ["viz", "build"])
    assert left.value.code == 2 and "uv run --group viz" in capsys.readouterr().err


def kedro(folder, environment, *arguments):
    return subprocess.run([KEDRO, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@NEEDS_VIZ
@pytest.mark.slow
def test_kedro_viz_builds_a_page_of_layers_and_stages_without_data_and_network(copied, environment):
    witness = copied / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(WITNESS.replace("{path!r}", repr(str(witness / "asked"))))
    done = kedro(copied, environment | {"PYTHONPATH": str(witness)}, "viz", "build", "--include-previews")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (witness / "asked").exists(), (witness / "asked").read_text()
    page = json.loads((copied / "build/api/main").read_text())
    boxes = {node["name"] for node in page["nodes"] if node["type"] == "modularPipeline"}
    layers = {node["name"]: node["layer"] for node in page["nodes"] if node["type"] == "data"}
    assert boxes == BOXES
    assert layers["digits_glt.manifest"] == "model input (split)"
    assert layers["digits_glt.ce.s0.checkpoint"] == "models (train)"
    assert [layer for layer in page["layers"] if layer in set(layers.values())] == [
        *("raw (fetch)", "parameters", "model input (split)", "models (train)", "models (export)"),
        *("model output (evaluate)", "reporting (report)"),
    ]
    for file in (copied / "build").rglob("*"):
        if file.is_file() and (file.suffix == ".html" or "api" in file.parts):
            assert str(copied) not in file.read_text(), file
    for file in ("index.html", "404.html"):
        assert not re.search(r'(?:href|src)="https?://', (copied / "build" / file).read_text())
    assert not (copied / "data").exists() and not (copied / ".viz").exists()
    look(copied / "build", page["layers"][1:], copied / "profile")


def look(site, texts, profile):
    """Open the page in a browser that reaches this machine alone; all texts are there."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("built; to look at it needs Debian's package chromium")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000", "--dump-dom"),
            *(f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
            *("--virtual-time-budget=20000", f"http://127.0.0.1:{server.server_address[1]}/"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
        server.shutdown()
    shown = re.sub(r"<[^>]+>", " ", done.stdout)
    assert all(text in shown for text in texts), done.stderr[-2000:]


@NEEDS_VIZ
@pytest.mark.slow
def test_a_page_that_cannot_be_built_is_an_error(copied, environment):
    """Kedro-Viz itself exits with 0."""
    (copied / "conf/base/parameters/digits_glt.yml").write_text("digits_glt: {source: 1}\n")
    done = kedro(copied, environment, "viz", "build")
    assert done.returncode == 1 and "built no page" in done.stderr
    assert not (copied / "build/api").exists()
