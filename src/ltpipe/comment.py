"""`ltpipe comment`: what a pull request does to a benchmark, as markdown for its step summary and its comment.

    ltpipe comment digits_glt --base HEAD^1 --exit-code 0 --out comment.md

Reads the verdict that the gate just judged, what the report says of classes, and of every benchmark the accepted
numbers and the gate on the base and here. GitHub takes a comment of 65,536 characters: a longer one loses rows of its
tables, then its pictures, and says so. Ends with 8 if something was changed that nobody agreed to
(`ltpipe.evaluation.pull_request` says what).
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from kedro.utils import find_kedro_project

from ltpipe.config.parameters import load_blocks
from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import Accepted, read_accepted
from ltpipe.evaluation.changes import Changed, by_class, by_group, first_runs
from ltpipe.evaluation.mermaid import Place, draw_bars_and_line
from ltpipe.evaluation.metrics import parse_path
from ltpipe.evaluation.pull_request import Change, Row, Side, find_change
from ltpipe.evaluation.verdict import PASSING
from ltpipe.storage.atomic import write_atomically

PARAMETERS, ACCEPTED = "conf/base/parameters", "conf/accepted"
# Files that make this check. A pull request can edit them too, so the comment names them for the reviewer's eye.
JUDGES = (
    ".github",
    ".ci",
    "conf/base/catalog.yml",
    "conf/base/globals.yml",
    "pipelines",
    "pyproject.toml",
    "src/ltpipe/accept.py",
    "src/ltpipe/benchmark.py",
    "src/ltpipe/cli.py",
    "src/ltpipe/commands.py",
    "src/ltpipe/comment.py",
    "src/ltpipe/config",
    "src/ltpipe/evaluation",
    "src/ltpipe/hooks.py",
    "src/ltpipe/pipeline_registry.py",
    "src/ltpipe/previewed.py",
    "src/ltpipe/serving",
    "src/ltpipe/session.py",
    "src/ltpipe/settings.py",
    "src/ltpipe/state.py",
    "src/ltpipe/storage",
    "src/ltpipe/tracking.py",
    "src/ltpipe/view.py",
)
LIMIT = 65_000  # bytes; GitHub counts characters, and takes 65,536 of them
ROWS = (1000, 100, 30, 10, 3)  # of a table or list: the first of these with which the comment is short enough
LONGEST = 1000  # characters of a text of the pull request
DRAWN = 3  # runs of which there is a picture of groups
JUDGED = (0, 3, 6)  # exit codes with which the gate itself ends; any other one leaves no verdict of this state


class NotAgreed(Refused):
    """Accepted numbers or the gate are changed, and neither a new reason nor the label allows it."""

    exit_code = 8


@click.command("comment")
@click.argument("benchmark")
@click.option("--base", required=True, metavar="REVISION", help="Git revision that the pull request is compared with.")
@click.option("--exit-code", type=int, required=True, help="Exit code of the benchmark's run, which ends at its gate.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--label", default="accept-numbers", show_default=True, help="The label that agrees to worse numbers.")
@click.option("--agreed", type=bool, default=False, metavar="true|false", help="Whether the label is set.")
@click.option("--commit", default="", metavar="REVISION", help="The commit that was judged, for the reader.")
@click.option("--pictures", default="", metavar="URL", help="Where the report and its pictures are.")
def command(
    benchmark: str, base: str, exit_code: int, out: Path, label: str, agreed: bool, commit: str, pictures: str
) -> None:
    """Write what a pull request does to BENCHMARK; end with 8 if it needs an agreement that it lacks."""
    root = Path(find_kedro_project(Path.cwd()) or Path.cwd())
    changes = find_changes(root, base)
    missing = [] if agreed else [line for change in changes for line in change.missing(label)]
    verdict = _read_verdict(root, benchmark) if exit_code in JUDGED else None
    old = _accepted(root, base).get(benchmark)
    edited = any(change.accepts for change in changes if change.benchmark == benchmark)
    drawn = _pictures(root, benchmark, verdict, old) if verdict and old and verdict["primary"] else []
    judges = _judges(_edited(root, base))

    def compose(most: int) -> list[str]:
        return [
            f"<!-- ltpipe gate: {benchmark} -->",  # by its first line the comment is found again, and updated
            f"## {benchmark}: {_title(exit_code, missing, verdict)}",
            "",
            *_agreement(changes, missing, label, agreed, most),
            *(_verdict_section(verdict, old, edited, most) if verdict else [_no_verdict(exit_code), ""]),
            *(drawn if most > min(ROWS) else []),
            *(line for change in changes for line in _change_section(change, most)),
            *judges,
            *([f"Report: {pictures}", ""] if pictures else []),
            *([f"Judged at {_quote(commit[:12])}.", ""] if commit else []),
        ]

    write_atomically(out, "\n".join(shorten(compose)).encode())
    if missing:
        why = [*missing, *(line for change in changes for line in change.only_label)]
        raise NotAgreed("not agreed:\n" + "\n".join(f"  {line}" for line in why))


def shorten(compose: Callable[[int], list[str]]) -> list[str]:
    """Return the lines of a comment that GitHub takes. compose: makes them, with at most so many rows of a table."""
    for most in ROWS:
        lines = compose(most)
        if _size(lines) <= LIMIT:
            return lines
    kept: list[str] = []
    for line in lines:
        if _size([*kept, line]) > LIMIT - 100:
            break
        kept.append(line)
    return [*kept, "", "**The rest is cut: GitHub takes no longer comment.** The report has all of it.", ""]


def _size(lines: Sequence[str]) -> int:
    return len("\n".join(lines).encode())


def find_changes(root: Path, base: str) -> list[Change]:
    """Return what changes between the base and the working tree, for each benchmark with accepted numbers."""
    old, new = _accepted(root, base), _accepted(root, None)
    reasons = [reason for accepted in old.values() for reason in (accepted.reason, *accepted.retired.values())]
    names = sorted({*old, *new})
    with tempfile.TemporaryDirectory() as folder:
        for path in _listed(root, base, PARAMETERS):
            (Path(folder) / Path(path).name).write_bytes(_git(root, "show", f"{base}:./{path}"))
        before, after = _blocks(Path(folder), names), _blocks(root / PARAMETERS, names)
    sides = {name: (Side(before[name], old.get(name)), Side(after[name], new.get(name))) for name in names}
    found = (find_change(name, *sides[name], reasons) for name in names)
    return [change for change in found if change is not None]


def _blocks(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return each benchmark's parameters, or None where it has no file."""
    return {name: load_blocks(folder, [name])[name] if (folder / f"{name}.yml").exists() else None for name in names}


def _accepted(root: Path, revision: str | None) -> dict[str, Accepted]:
    """Return the accepted baselines of a revision, or of the working tree. Raises Refused if one was edited by hand."""
    if revision is None:
        texts = {path.stem: path.read_bytes() for path in sorted((root / ACCEPTED).glob("*.json"))}
    else:
        paths = [path for path in _listed(root, revision, ACCEPTED) if path.endswith(".json")]
        texts = {Path(path).stem: _git(root, "show", f"{revision}:./{path}") for path in paths}
    return {name: read_accepted(_parse(text, name), name) for name, text in texts.items()}


def _parse(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(f"{ACCEPTED}/{name}.json is not JSON: {error}") from None


def _read_verdict(root: Path, benchmark: str) -> Mapping[str, Any]:
    path = root / f"data/08_reporting/{benchmark}/verdict.json"
    if not path.exists():
        raise Refused(f"no {path.relative_to(root)}: run kedro run --pipeline={benchmark} first")
    verdict: Mapping[str, Any] = json.loads(path.read_bytes())
    return verdict


def _listed(root: Path, revision: str, folder: str) -> list[str]:
    return _git(root, "ls-tree", "-r", "--name-only", revision, "--", folder).decode().splitlines()


def _edited(root: Path, base: str) -> list[str]:
    """Return which of the files that judge are edited."""
    return _git(root, "diff", "--relative", "--name-only", base, "--", *JUDGES).decode().splitlines()


def _git(root: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    if done.returncode:
        raise Refused(f"git {' '.join(arguments[:2])}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _title(exit_code: int, missing: Sequence[str], verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "not judged"
    if verdict["baseline"] == "nothing":
        return "the gate judges nothing" + ", **and changes are not agreed**" * bool(missing)
    gate = {0: "the gate passes", 3: "the gate fails", 6: "no accepted baseline yet"}[exit_code]
    return f"{gate}, **but changes are not agreed**" if missing else gate


def _no_verdict(exit_code: int) -> str:
    return f"The run ended with exit code {exit_code} before the gate: its log says why. There are no new numbers."


def _agreement(changes: Sequence[Change], missing: Sequence[str], label: str, agreed: bool, most: int) -> list[str]:
    """Return what this pull request changes that an ordinary one does not, named first."""
    if not changes:
        return []
    lines = [f"* **This pull request edits `{ACCEPTED}/{c.benchmark}.json`.**" for c in changes if c.accepts]
    lines += [f"* **This pull request loosens the gate of `{c.benchmark}`.**" for c in changes if c.loosened]
    if missing:
        lines += _items([f"Missing: {_quote(line)}" for line in missing], most)
    else:
        lines.append(f"* Agreed by the label `{label}`." if agreed else "* Agreed by a reason that is new here.")
    return [*lines, ""]


def _verdict_section(verdict: Mapping[str, Any], old: Accepted | None, edited: bool, most: int) -> list[str]:
    """Return the gate's rows, the failed ones first and those that pass folded.

    old: accepted on the base. edited: whether other numbers are accepted here, from which the difference is then.
    """
    rows = [(row["verdict"] in PASSING, _verdict_row(row, old, edited)) for row in verdict["rows"]]
    failed = [row for passes, row in rows if not passes]
    passed = [row for passes, row in rows if passes]
    here = ["accepted here"] if edited else []
    head = ["run", "metric", "old (base)", *here, "new", "n", "difference", "margin", "verdict"]
    lines = [*_table(head, failed, most), ""] if failed else []
    if verdict["failed"]:
        lines += [*_items([_quote(line) for line in verdict["failed"]], most), ""]
    if passed and failed:
        lines += [f"<details><summary>{len(passed)} comparisons pass</summary>", "", *_table(head, passed, most), ""]
        lines += ["</details>", ""]
    elif passed:
        lines += [*_table(head, passed, most), ""]
    lines += [f"Changed since accepted: {_quote(line)}\n" for line in verdict["settings"][:most]]
    return [
        *lines,
        "Rates in percent; differences and margins in points, from the accepted numbers of this branch.",
        "",
    ]


def _verdict_row(row: Mapping[str, Any], old: Accepted | None, edited: bool) -> list[str]:
    before = old.runs[row["run"]].mean.get(row["metric"]) if old and row["run"] in old.runs else None
    here = [_number(row["accepted"])] if edited else []
    numbers = (
        _number(before),
        *here,
        _number(row["mean"]),
        str(row["n"]),
        _signed(row["delta"]),
        _number(row["margin"]),
    )
    return [_quote(row["run"]), _quote(row["metric"]), *numbers, _verdict(row["verdict"])]


def _verdict(text: str) -> str:
    return text if text in PASSING else f"**{text}**"


def _pictures(root: Path, benchmark: str, verdict: Mapping[str, Any], old: Accepted) -> list[str]:
    """Return what reviewers ask, a picture each: which groups changed, and which classes; and the numbers of both."""
    lines = ["### Old and new", ""]
    if {data for summary in verdict["summaries"] for data in summary["data"]} != {old.data}:
        return [*lines, "The accepted numbers of the base are of other data: old and new cannot be drawn together.", ""]
    classes = _read_classes(root, benchmark, verdict)
    recommended = classes["recommended"] if classes else None
    groups = by_group(verdict, old, recommended)
    if not groups:
        return [*lines, "Every number of a group is that of the base: there is nothing to draw.", ""]
    failed = [row["run"] for row in verdict["rows"] if row["verdict"] not in PASSING]
    drawn = first_runs(list(groups), recommended, failed, DRAWN)
    lines += ["Bars: here. Line: accepted on the base. Rates in percent, means over seeds.", ""]
    lines += [line for run in drawn for line in _group_picture(run, groups[run], verdict["primary"], recommended)]
    if left := [run for run in groups if run not in drawn]:
        lines += [f"Not drawn: {_names(left)}.", ""]
    rows = [(_quote(row.name), row) for run in drawn for row in groups[run]]
    if classes:
        changed = _changed_classes(root, benchmark, verdict, old, classes, list(groups))
        lines += _class_picture(changed, parse_path(verdict["primary"]).protocol)
        rows += [(f"class {_quote(row.name)}", row) for row in changed]
    numbers = [[_quote(r.run), of, *map(_number, (r.old, r.new)), _signed(r.new - r.old)] for of, r in rows]
    table = _table(["run", "of", "old (base)", "new", "difference"], numbers, len(numbers))
    return [*lines, "<details><summary>The numbers of the pictures</summary>", "", *table, "", "</details>", ""]


def _group_picture(run: str, rows: Sequence[Changed], primary: str, recommended: str | None) -> list[str]:
    metric, which = parse_path(primary).metric, ", recommended" if run == recommended else ""
    chart = draw_bars_and_line(f"{run}{which}: {metric} by group", metric, [Place(r.name, r.new, r.old) for r in rows])
    return [*chart, ""] if chart else []


def _class_picture(rows: Sequence[Changed], protocol: str) -> list[str]:
    """Return the picture of classes; each is named with its run if they are of several."""
    several = len({row.run for row in rows}) > 1
    places = [Place(f"{row.name}, {row.run}" if several else row.name, row.new, row.old) for row in rows]
    of = "" if several or not rows else f" of {rows[0].run}"
    chart = draw_bars_and_line(f"Classes{of} that changed most, {protocol}", "recall", places)
    return [*chart, ""] if chart else []


def _read_classes(root: Path, benchmark: str, verdict: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the report says of classes; None if there is none, or if it is of another state than the verdict."""
    path = root / f"data/08_reporting/{benchmark}/report/classes.json"
    found = json.loads(path.read_bytes()) if path.exists() else {}
    return found if found.get("state") == verdict["state"]["digest"] else None


def _changed_classes(
    root: Path,
    benchmark: str,
    verdict: Mapping[str, Any],
    old: Accepted,
    classes: Mapping[str, Any],
    runs: Sequence[str],
) -> list[Changed]:
    import pandas as pd

    path = root / f"data/05_model_input/{benchmark}/manifest.parquet"
    if not path.exists():
        return []
    manifest = pd.read_parquet(path, columns=["id", "split", "label"])
    return by_class(classes, old, manifest, parse_path(verdict["primary"]).protocol, runs)


def _change_section(change: Change, most: int) -> list[str]:
    """Return the old and new accepted numbers of a benchmark, its reason, and what only the label allows."""
    lines = [f"### Accepted numbers and gate of {change.benchmark}", ""]
    if change.reason:
        known = "new in this pull request" if change.new_reason else "**not new: it is on the base already**"
        lines += [f"Reason ({known}): {_quote(change.reason)}", ""]
    if change.rows:
        head = ["run", "metric", "accepted (base)", "accepted (here)", "difference", "margin", "by the base's gate"]
        rows = [_change_row(row) for row in change.rows]
        lines += [*_table(head, rows, most), ""]
    if change.only_label:
        lines += ["Only the label allows:", "", *_items([_quote(line) for line in change.only_label], most), ""]
    return lines


def _change_row(row: Row) -> list[str]:
    numbers = (_number(row.old), _number(row.new), _signed(row.difference), _number(row.margin))
    return [_quote(row.run), _quote(row.metric), *numbers, "**worse**" if row.worse else "not worse"]


def _judges(edited: Sequence[str]) -> list[str]:
    if not edited:
        return []
    return [f"This pull request edits what makes this check; read it by eye: {_names(edited)}.", ""]


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(_quote, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> list[str]:
    lines = [head, ["---"] * len(head), *rows[:most]]
    more = [f"and {len(rows) - most} more rows, in the report"] if len(rows) > most else []
    return [*(f"| {' | '.join(line)} |" for line in lines), *(f"| {line} |" for line in more)]


def _items(lines: Sequence[str], most: int) -> list[str]:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [f"* {line}" for line in [*lines[:most], *more]]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    # + 0.0 makes of -0.0, and of what rounds to it, a zero without a sign
    return "-" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def _quote(text: str) -> str:
    """Return a text of the pull request as a code span: it mentions nobody, and is no markup."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/") or "-"
    return f"`{plain if len(plain) <= LONGEST else plain[:LONGEST] + '…'}`"


if __name__ == "__main__":
    command()
