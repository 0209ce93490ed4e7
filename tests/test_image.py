"""The Docker image: its files are checked without Docker; it is built and run if a Docker engine answers (soak)."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_predict import COLOURS, build, facts, paint

ROOT = Path(__file__).parents[1]
TAG = "ltpipe:test"
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def locked(name: str = "requirements.lock") -> list[tuple[Requirement, str]]:
    """Every requirement of a lock with its hashes, as text."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(Requirement(line.partition("--hash")[0].strip()), line.partition("--hash")[2]) for line in lines]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest), comments and line ends removed, ARG defaults filled in."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parsed, defaults = [], {}
    for line in joined.splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "ARG":
            key, _, value = rest.partition("=")
            defaults[key] = value
        for key, value in defaults.items():
            rest = rest.replace(f"${{{key}}}", value)
        if name:
            parsed.append((name, rest))
    return parsed


def last(name: str) -> str:
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def test_the_lock_has_every_direct_dependency_in_a_version_that_pyproject_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions: dict[str, list[str]] = {}
    for requirement, _ in locked():
        versions.setdefault(requirement.name, []).append(str(requirement.specifier).removeprefix("=="))
    for wanted in map(Requirement, project["dependencies"]):
        assert wanted.name in versions, f"{wanted.name}: renew requirements.lock, docs/docker.md says how"
        wrong = [version for version in versions[wanted.name] if version not in wanted.specifier]
        assert not wrong, f"{wanted.name} {wrong} is not {wanted.specifier}: renew requirements.lock"


def test_the_lock_is_pinned_and_hashed_and_names_no_index():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--index" not in text
    for requirement, hashes in locked():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"{requirement} is not pinned"
        assert re.match(r"=sha256:[0-9a-f]{64}", hashes), f"{requirement} has no hash"


def test_the_lock_leaves_out_telemetry_and_what_only_tests_need():
    names = {requirement.name for requirement, _ in locked()}
    assert not names & {"kedro-telemetry", "pytest", "mypy", "ruff"}


def test_the_serving_lock_is_the_group_serve_in_the_versions_of_the_whole_lock():
    """So a served model runs on what it was measured with; onnxruntime is the same release without CUDA."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["serve"]
    served = {requirement.name: requirement for requirement, _ in locked("requirements.serve.lock")}
    assert {Requirement(wanted).name for wanted in group} <= set(served)
    assert not set(served) & {"torch", "kedro", "dvc", "onnxruntime-gpu", "pandas", "pyarrow", "scipy"}
    whole = {str(requirement.specifier) for requirement, _ in locked() if requirement.name.startswith("onnxruntime")}
    assert str(served["onnxruntime"].specifier) in whole
    versions = {(requirement.name, str(requirement.specifier)) for requirement, _ in locked()}
    other = {(name, str(of.specifier)) for name, of in served.items() if name != "onnxruntime"} - versions
    assert not other, "renew requirements.serve.lock, docs/docker.md says how"
    for requirement, hashes in locked("requirements.serve.lock"):
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)) and re.match(r"=sha256:[0-9a-f]{64}", hashes)


def test_the_serving_group_allows_what_the_project_allows():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = {Requirement(line).name: Requirement(line) for line in pyproject["project"]["dependencies"]}
    for wanted in map(Requirement, pyproject["dependency-groups"]["serve"]):
        assert wanted.specifier == project[wanted.name].specifier, wanted.name


def test_dockerignore_is_an_allow_list_without_data_and_repository():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    locks = {"requirements.lock", "requirements.serve.lock"}
    assert allowed == locks | {"pyproject.toml", "README.md", "LICENSE", "src", "pipelines", "conf"}
    assert rules.index("conf/local") > rules.index("!conf")


def test_every_file_that_the_dockerfile_copies_passes_dockerignore():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copies = [rest.split() for name, rest in instructions() if name == "COPY" and "--from=" not in rest]
    sources = {source.rstrip("*") for words in copies for source in words[:-1] if not source.startswith("--")}
    bound = {s for _, rest in instructions() for s in re.findall(r"type=bind,source=([^,\s]+)", rest)}
    assert sources and bound and sources | bound <= allowed


def test_the_image_runs_kedro_as_a_numeric_user_that_is_not_root():
    user = last("USER")
    assert re.fullmatch(r"\d+:\d+", user) and "0" not in user.split(":")
    assert json.loads(last("CMD")) == ["kedro", "run"]
    assert json.loads(last("ENTRYPOINT")) == ["/usr/bin/tini", "--"]


def test_the_image_turns_telemetry_off():
    settings = set(last("ENV").split())
    assert {"DO_NOT_TRACK=1", "DVC_NO_ANALYTICS=1", "ORT_DISABLE_TELEMETRY=1"} <= settings
    assert not any(setting.startswith("PYTHONDONTWRITEBYTECODE") for setting in settings)


def test_the_dockerfile_needs_a_registry_only_for_its_base_image():
    text = (ROOT / "Dockerfile").read_text()
    assert text.startswith("# check=error=true\n") and "# syntax" not in text
    sources = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    stages = {rest.split()[-1] for name, rest in instructions() if name == "FROM"}
    assert {source for source in sources if source not in stages} == {"docker.io/library/python:3.11-slim-bookworm"}


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one stage."""
    found, inside = [], False
    for instruction, rest in instructions():
        inside = rest.split()[-1] == name if instruction == "FROM" else inside
        found += [(instruction, rest)] * inside
    return found


def test_the_serving_stage_runs_ltpipe_as_a_numeric_user_and_the_default_stage_is_the_other():
    serving = dict(stage("serve"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", serving["USER"])
    assert json.loads(serving["ENTRYPOINT"])[-1] == "ltpipe" and "ORT_DISABLE_TELEMETRY=1" in serving["ENV"]
    assert [rest for name, rest in instructions() if name == "FROM"][-1].endswith(" AS runtime")


def docker(*arguments: str, timeout: int = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def image():
    if shutil.which("docker") is None:
        pytest.skip("no docker command: the image is not built")
    if docker("version").returncode != 0:
        pytest.skip("no Docker engine answers `docker version`: the image is not built")
    built = docker("build", "--tag", TAG, str(ROOT), timeout=3000)
    assert built.returncode == 0, built.stderr[-4000:]
    yield TAG
    docker("image", "rm", TAG)


@pytest.fixture
def volume(image):
    """A named volume and no folder of this machine: the engine may be on another one."""
    name = docker("volume", "create").stdout.strip()
    yield name
    docker("volume", "rm", "--force", name)


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_the_image_runs_the_embedded_benchmark_to_a_passing_gate_hardened_and_offline(image, volume):
    done = docker("run", "--rm", *HARDENED, "--network", "none", "-v", f"{volume}:/app/data", image)
    assert done.returncode == 0, done.stderr[-4000:]
    path = "/app/data/08_reporting/digits_glt/verdict.json"
    shown = docker("run", "--rm", "-v", f"{volume}:/app/data", image, "cat", path)
    verdict = json.loads(shown.stdout)
    assert verdict["passes"] and verdict["rows"]
    assert {row["verdict"] for row in verdict["rows"]} == {"pass"}


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_a_pipeline_runs_by_name_for_a_user_that_the_image_does_not_know(image, volume):
    mount = ["-v", f"{volume}:/app/data:nocopy"]  # an empty volume would take its owner from the image each time
    given = docker("run", "--rm", "--user", "0", *mount, image, "chown", "4242:4242", "/app/data")
    assert given.returncode == 0, given.stderr
    command = ["kedro", "run", "--pipeline=digits_glt", "--env=smoke"]
    done = docker("run", "--rm", *HARDENED, "--user", "4242:4242", *mount, image, *command)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_a_run_opens_no_connection_and_resolves_no_name(image):
    done = docker("run", "--rm", image, "sh", "-c", "kedro run --env=smoke && cat /proc/net/snmp")
    assert done.returncode == 0, done.stderr[-4000:]
    counters = {}
    rows = [line.split() for line in done.stdout.splitlines()]
    for protocol in ("Tcp:", "Udp:"):
        names, values = (row for row in rows if row and row[0] == protocol)
        counters |= dict(zip(names[1:], values[1:], strict=True))
    assert counters["ActiveOpens"] == "0" and counters["OutDatagrams"] == "0"


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_an_unknown_pipeline_is_refused_in_one_message(image):
    done = docker("run", "--rm", image, "kedro", "run", "--pipeline=nonexistent")
    assert done.returncode == 2, done.stderr
    assert "nonexistent" in done.stderr and "digits_glt" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_dvc_starts_for_a_user_without_a_name(image):
    done = docker("run", "--rm", "--user", "4242:4242", image, "sh", "-c", "cd /tmp && dvc init --no-scm && dvc status")
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_the_image_holds_the_installed_project_and_nothing_else_of_the_repository(image):
    assert docker("run", "--rm", image, "id", "-u").stdout == "10001\n"
    listed = docker("run", "--rm", image, "find", "/app", "-mindepth", "1", "-maxdepth", "1").stdout.split()
    assert sorted(listed) == ["/app/conf", "/app/data", "/app/pyproject.toml"]
    assert docker("run", "--rm", image, "ls", "-A", "/app/data").stdout == ""
    assert "local" not in docker("run", "--rm", image, "ls", "/app/conf").stdout.split()
    code = "import ltpipe, pipelines; print(ltpipe.__file__, pipelines.__file__)"
    paths = docker("run", "--rm", image, "python", "-c", code).stdout.split()
    assert len(paths) == 2 and all("/site-packages/" in path for path in paths)


SERVE = "ltpipe-serve:test"
ALONE = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]


@pytest.fixture(scope="module")
def serving():
    if shutil.which("docker") is None or docker("version").returncode != 0:
        pytest.skip("no Docker engine answers: the serving image is not built")
    built = docker("build", "--target", "serve", "--tag", SERVE, str(ROOT), timeout=3000)
    assert built.returncode == 0, built.stderr[-4000:]
    yield SERVE
    docker("image", "rm", SERVE)


@pytest.fixture
def served(serving, tmp_path):
    """The end of a `docker run`: a volume with a model and pictures. They are copied: the engine may be elsewhere."""
    photos = tmp_path / "photos"
    photos.mkdir()
    tmp_path.chmod(0o755)  # pytest's folder is for its owner alone
    (tmp_path / "model.onnx").write_bytes(build(facts()))
    for colour in COLOURS:
        paint(colour, (9, 7)).save(photos / f"{colour}.png")
    volume = docker("volume", "create").stdout.strip()
    name = docker("create", "-v", f"{volume}:/in", serving).stdout.strip()
    assert docker("cp", f"{tmp_path}/.", f"{name}:/in").returncode == 0
    yield ["-v", f"{volume}:/in:ro", serving]
    docker("rm", "--force", name)
    docker("volume", "rm", "--force", volume)


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_the_serving_image_is_below_500_mb_and_holds_no_framework(serving):
    assert int(docker("image", "inspect", serving, "--format", "{{.Size}}").stdout) < 500_000_000
    code = "import importlib.util as u; print([n for n in ('torch', 'kedro', 'dvc', 'pandas') if u.find_spec(n)])"
    assert docker("run", "--rm", "--entrypoint", "python", serving, "-c", code).stdout == "[]\n"


@pytest.mark.soak
@pytest.mark.timeout(5000)
@pytest.mark.parametrize("user", ["10001:10001", "4242:4242"])
def test_the_serving_image_predicts_read_only_and_offline_for_any_user(served, user):
    done = docker("run", "--rm", *ALONE, "--user", user, *served, "predict", "/in/model.onnx", "/in/photos")
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[2] for line in done.stdout.splitlines()[1:]] == sorted(COLOURS)


@pytest.mark.soak
@pytest.mark.timeout(5000)
@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["train"], "needs the package "),
        (["predict", "/in/model.onnx", "/in/photos", "--out", "/tmp/x.parquet"], "pyarrow"),
    ],
)
def test_what_the_serving_image_lacks_is_said_in_one_message(served, arguments, missing):
    done = docker("run", "--rm", *ALONE, *served, *arguments)
    assert done.returncode == 2 and missing in done.stderr and "Traceback" not in done.stderr
