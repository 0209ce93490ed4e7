"""The commands of the documentation: those that a test runs, and those that none can, with the reason.

tests/test_docs.py collects every command of the pages; a new one must be here, and one that is gone must not.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = ("methods", "benchmarks", "options", "results", "known_answers", "graph")
WRITTEN_BY_CODE = {f"docs/{name}.md" for name in GENERATED}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# a command wherever it stands; in tables, also one for an environment that is active
COMMAND = re.compile(r"(uv|docker|git|pip|mkdocs) |[A-Z_]+=\S+ uv ")
IN_TABLES = re.compile(r"(kedro|dvc|ltpipe|pytest) ")


def pages() -> list[Path]:
    """Return every page that a person wrote."""
    found = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "data/README.md",
        ROOT / "conf/accepted/README.md",
    ]
    return sorted(page for page in found if page.relative_to(ROOT).as_posix() not in WRITTEN_BY_CODE)


def commands(text: str) -> Iterator[str]:
    """Yield every command of a page: lines of its blocks `sh`, and code in its sentences and tables."""
    for language, block in FENCE.findall(text):
        if language == "sh":
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            yield from filter(None, (re.sub(r"\s+# .*", "", line).strip() for line in lines))
    for line in FENCE.sub("", text).splitlines():
        for code in re.findall(r"`([^`]+)`", line):
            if COMMAND.match(code) or (line.startswith("|") and IN_TABLES.match(code)):
                yield code


PIPELINE = "uv run kedro run --pipeline=digits_glt"
CELL = "--namespaces=digits_glt.ce.s0"

# Run as they are and in this order, in a copy of the project with short trainings and nothing accepted: with exit code.
STORY = [
    ("uv run ltpipe generate", 0),
    ("uv run ltpipe generate --check", 0),
    ("uv run ltpipe generate --show cifar100_lt_10", 0),
    ("uv run kedro registry list", 0),
    ("uv run ltpipe train --help", 0),
    (f"{PIPELINE} --env=smoke", 0),
    (PIPELINE, 6),
    ('uv run ltpipe accept digits_glt --reason "why these numbers are right"', 0),
    ("uv run dvc repro", 0),
    (PIPELINE, 0),
    (f"{PIPELINE} --tags=export,evaluate,report,gate", 0),
    (f"{PIPELINE} --tags=evaluate,report", 0),
    (f"{PIPELINE} --tags=split", 0),
    (f"{PIPELINE} {CELL}", 0),
    (f"{PIPELINE} {CELL} --tags=train --fresh", 0),
    (f"{PIPELINE} --params=digits_glt.schedule.epochs=10", 3),
    ("uv run dvc repro train-digits_glt-ce", 0),
    ("uv run dvc dag", 0),
    ("uv run dvc metrics show", 0),
    ("uv run dvc plots show", 0),
    ("uv run dvc exp show", 0),
    (
        "uv run ltpipe train data/05_model_input/digits_glt --benchmark conf/base/parameters/digits_glt.yml "
        "--run ce --seed s0 --out results",
        0,
    ),
    ("uv run ltpipe predict model.onnx images/ --out predictions.csv", 0),
]

INIT = "tests/test_init.py::test_from_a_folder_of_pictures_to_a_gate_without_an_edit"
EXPERIMENT = "tests/test_repro.py::test_an_experiment_is_kept_though_its_gate_would_fail"
QUANTISED = "tests/test_quantise.py::test_the_commands_of_the_page_take_a_copy_and_find_the_data_by_the_model"
IMAGE = "tests/test_image.py::test_the_image_runs_the_embedded_benchmark_to_a_passing_gate_hardened_and_offline"

# Run elsewhere: the test (or the script), and what stands in its file; names of folders and benchmarks may be others.
ELSEWHERE = {
    "pip install uv": (".ci/run", "pip install --quiet uv"),
    "uv run pytest": (".ci/run", "uv run pytest"),
    "uv run pytest -m slow": (".ci/run", "uv run pytest -n 2 --dist loadfile -m slow"),
    "uv run ruff check . && uv run ruff format --check . && uv run mypy": (
        "tests/test_layers.py::test_ruff_and_mypy_are_clean",
        '["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]',
    ),
    "uv run --group docs mkdocs build --strict": (
        "tests/test_docs.py::test_the_site_is_built_without_a_warning",
        '"mkdocs", "build", "--strict"',
    ),
    "MLFLOW_TRACKING_URI=http://localhost:5000 uv run --extra mlflow kedro run --pipeline=digits_glt": (
        "tests/test_tracking.py::test_a_whole_run_is_tracked_and_ends_as_it_would_without",
        'call(project, "kedro", "run", "--pipeline=digits_glt")',
    ),
    "uv run --group viz kedro viz build --include-previews": (
        "tests/test_viz.py::test_kedro_viz_builds_a_page_of_layers_and_stages_without_data_and_network",
        '"viz", "build", "--include-previews"',
    ),
    "uv run ltpipe generate --show NAME": (
        "tests/test_like.py::test_show_prints_the_whole_and_the_whole_is_the_benchmark",
        '"ltpipe", "generate", "--show", "cifar100_lt_10"',
    ),
    "uv run ltpipe init PATH --name NAME": (INIT, '"ltpipe", "init", str(photos), "--name", "photos"'),
    "uv run ltpipe init ../photos --name photos": (INIT, '"ltpipe", "init", str(photos), "--name", "photos"'),
    "uv run ltpipe init pictures --name photos": (
        "tests/test_init.py::test_a_folder_inside_of_the_project_is_named_relative_to_it",
        'invoke("photos", "--name", "inside")',
    ),
    "uv run dvc add pictures": (
        "tests/test_own_data.py::test_images_that_dvc_keeps_are_read_from_the_project",
        '"dvc", "add", "pictures"',
    ),
    "uv run ltpipe generate image_folder": (
        "tests/test_own_pictures.py::test_the_command_without_kedro_trains_the_same",
        '"ltpipe", "generate", "own"',
    ),
    "uv run dvc repro -R pipelines/dvc/image_folder": (INIT, '*again.split(), "--dry"'),  # the line that init prints
    "uv run dvc exp run --name short -S conf/base/parameters/digits_glt.yml:digits_glt.schedule.epochs=30 "
    "report-digits_glt": (EXPERIMENT, '"dvc", "exp", "run", "--name", "short", "-S"'),
    "git restore . && uv run dvc checkout": (EXPERIMENT, '"dvc", "checkout"'),
    "uv run ltpipe compare A B --split test_gbl --out compare.json": (
        "tests/test_compare.py::test_a_model_is_compared_with_the_predictions_of_another",
        '"--out", tmp_path / "out.json", "--split", "test"',
    ),
    "uv run ltpipe latency model.onnx --threads 1 --out latency.json --max-ratio 3": (
        "tests/test_latency.py::test_the_result_states_provider_threads_size_and_both_batches",
        '"--threads", 1, "--out"',
    ),
    "uv run ltpipe quantise model.onnx --precision int8 --out model.int8.onnx": (
        QUANTISED,
        '"--precision", "int8", "--out", "model.int8.onnx"',
    ),
    "uv run ltpipe quantise model.onnx --precision fp16 --out model.fp16.onnx": (
        QUANTISED,
        '"--precision", "fp16", "--out", "model.fp16.onnx"',
    ),
    "uv run ltpipe compare model.onnx model.int8.onnx --split test_gbl --max-fall 1": (
        QUANTISED,
        '["compare", "model.onnx", "model.int8.onnx", "--split", "test", "--max-fall", "1"]',
    ),
    "uv run ltpipe latency model.int8.onnx --threads 1": (
        QUANTISED,
        '["latency", "model.int8.onnx", "--threads", "1"]',
    ),
    "docker build --target serve -t ltpipe-serve .": ("tests/test_image.py", '"--target", "serve"'),
    "docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --network none "
    '-v "$PWD/model.onnx:/model.onnx:ro" -v "$PWD/photos:/photos:ro" '
    "ltpipe-serve predict /model.onnx /photos > predictions.csv": (
        "tests/test_image.py::test_the_serving_image_predicts_read_only_and_offline_for_any_user",
        '"predict", "/in/model.onnx", "/in/photos"',
    ),
    "docker build -t ltpipe .": (IMAGE, 'docker("build", "--tag", TAG'),
    "docker run --rm ltpipe": (IMAGE, 'docker("run", "--rm"'),
    "docker run --rm -v ltpipe-data:/app/data ltpipe": (IMAGE, '"-v", f"{volume}:/app/data"'),
    "docker run --rm ltpipe kedro run --pipeline=digits_glt --env=smoke": (
        "tests/test_image.py::test_a_pipeline_runs_by_name_for_a_user_that_the_image_does_not_know",
        '["kedro", "run", "--pipeline=digits_glt", "--env=smoke"]',
    ),
}

# Not run, by reason.
NOT_RUN = {
    "a part of a command, or words that stand for others": [
        "uv run",
        "kedro run --params=...",
        "docker kill",
        "docker stop -t 120 NAME",
        "docker run",
        'ltpipe accept NAME --reason "..."',
    ],
    "it would run itself: a soak test runs the story above": ["uv run pytest -m soak"],
    "it serves until it is stopped": [
        "uv run --group docs mkdocs serve",
        "uv run python -m http.server --directory build",
    ],
    "it is a shell for a person": ["docker run --rm -it ltpipe bash"],
    "it measures steps of a ResNet-50, minutes on a CPU; tests/test_init.py runs it with a small network": [
        "uv run ltpipe init ../photos --name photos --backbone resnet50.tv_in1k",
    ],
    "it downloads 169 or 248 MB of images": [
        "uv run kedro run --pipeline=cifar100_lt",
        "uv run kedro run --pipeline=tiny_imagenet_lt_32px",
    ],
    "it needs a CUDA device": [
        "uv run pytest -m gpu",
        "docker run --rm --gpus all -v ltpipe-data:/app/data ltpipe kedro run --pipeline=digits_glt",
    ],
    "it rewrites the losses that other tests compare with": [
        "LTPIPE_WRITE_GOLDEN=1 uv run pytest tests/test_golden.py -k NAME"
    ],
    "it is the image's own command, with its defaults written out": [
        "docker run --rm ltpipe kedro run --pipeline=digits_glt"
    ],
    "it mounts a folder of this machine, and the engine may be on another; tests mount volumes": [
        'docker run --rm -v "$PWD/data:/app/data" --user "$(id -u):$(id -g)" ltpipe',
        "docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "
        '--user "$(id -u):$(id -g)" --stop-timeout 120 -v "$PWD/data:/app/data" ltpipe kedro run --pipeline=digits_glt',
        'docker run --rm -v "$PWD:/src" -w /src -e PYTHONPATH=/src/src:/src --user "$(id -u):$(id -g)" '
        "ltpipe dvc repro",
    ],
    "it mounts a folder or a file of this machine; the same verbs run in the serving image by tests, or by hand": [
        'docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/in" ltpipe-serve predict /in/model.onnx '
        "/in/photos --out /in/predictions.jsonl --resume",
        'docker run --rm --read-only --network none -v "$PWD/model.onnx:/model.onnx:ro" ltpipe-serve latency '
        "/model.onnx",
    ],
    "it asks a package index for the newest versions, and rewrites the lock": [
        "uv pip compile --group serve --universal --python-version 3.11 --constraint requirements.lock "
        "--generate-hashes --no-emit-index-url --no-header -o requirements.serve.lock",
        "uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade --generate-hashes "
        "--no-emit-index-url --no-emit-package kedro-telemetry --no-header -o requirements.lock",
    ],
    "it asks a registry": ["docker buildx imagetools inspect python:3.11-slim-bookworm"],
    "it deletes what the engine keeps for all": ["docker builder prune"],
}
