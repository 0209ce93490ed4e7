"""Model card of a run: what a stranger must know of the model, with Hugging Face's metadata keys before the text.

Keys: https://huggingface.co/docs/hub/model-cards. The licence is `other`, because a NOTICE is prose, often of several
licences, and no program should read one of them out of it: the card quotes the NOTICE.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ltpipe.evaluation.headline import Headline
from ltpipe.evaluation.metrics import parse_path
from ltpipe.evaluation.report.card import split_grid
from ltpipe.evaluation.report.cells import Cells
from ltpipe.evaluation.report.numbers import NONE, number, outcome
from ltpipe.evaluation.report.page import Subject
from ltpipe.evaluation.report.recommend import Advice, contenders
from ltpipe.evaluation.verdict import PASSING
from ltpipe.storage.manifest import GROUPS

SIGNS = re.compile(r"([\\`*_\[\]<>|~&$])")  # what markdown takes for more than a letter, wherever it stands
AT_START = re.compile(r"^(\d*)([-+=#.)])")  # and what begins a list or a heading
HUB_NAMES = {"accuracy": "accuracy", "recall": "recall", "macro_f1": "f1"}  # metric -> its name on the hub
OTHERS = ("macro_f1", "worst_class", "worst_attribute", "worst_group", "ece")
MOST_CLASSES = 100  # that are named


def escape(text: Any) -> str:
    """Return any text so that markdown shows it on one line as it is, also in a cell of a table."""
    return AT_START.sub(r"\1\\\2", SIGNS.sub(r"\\\1", " ".join(str(text).split())))


def _cell(text: str) -> str:
    """Return a text for a cell of a table, where no list or heading begins."""
    return SIGNS.sub(r"\\\1", " ".join(text.split()))


def render_card(
    summary: Mapping[str, Any],
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    cells: Cells,
    shown: Sequence[Headline],
    advice: Advice,
    subject: Subject,
) -> str:
    """Return the card of one run. summary: the run's, of the verdict; shown: the headlines of all protocols."""
    facts = cells.predictions[0].attrs["facts"]
    measured = [headline for headline in shown if headline.path in summary["metrics"]]
    lines = [
        *_front_matter(summary, verdict["state"]["benchmark"], measured, subject),
        *_title(summary, verdict, facts),
        *_use(facts),
        *_data_section(verdict, validation, subject, facts),
        *_recipe_section(facts),
        *_results_section(summary, verdict, measured),
        "## Limits",
        "",
        *(f"* {escape(line)}." for line in verdict["state"]["warnings"] if _is_about(summary["run"], line)),
        *(f"* {sentence}" for sentence in limits(summary, measured, advice, facts)),
    ]
    return "\n".join([*lines, ""])


def _is_about(run: str, line: str) -> bool:
    """Tell whether a warning (see ltpipe.evaluation.pretraining) names the run; it begins with "RUN, RUN: "."""
    return run in line.partition(":")[0].split(", ")


def _front_matter(summary: Mapping[str, Any], benchmark: str, shown: Sequence[Headline], subject: Subject) -> list[str]:
    """Return the metadata, with all values as YAML writes them."""
    found = [metric for metric in HUB_NAMES if any(_rows(summary, headline, metric) for headline in shown)]
    tests = {name: splits.test for name, splits in subject.evaluation.protocols.items()}
    results = [_hub_result(summary, benchmark, headline, tests[headline.protocol]) for headline in shown]
    metadata = {
        "license": "other",
        "license_name": "licence-of-the-data",
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["long-tailed", "ltpipe"],
        "datasets": [benchmark],
        "metrics": [HUB_NAMES[metric] for metric in found],
        "model-index": [{"name": f"{benchmark}.{summary['run']}", "results": results}],
    }
    return ["---", yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000).rstrip(), "---", ""]


def _hub_result(summary: Mapping[str, Any], benchmark: str, headline: Headline, split: str) -> dict[str, Any]:
    """Return an entry of model-index: what one protocol measured, means over seeds in percent."""
    paths = [path for metric in HUB_NAMES for path in _rows(summary, headline, metric)]
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": benchmark, "name": f"{benchmark}, protocol {headline.protocol}", "split": split},
        "metrics": [
            {
                "type": HUB_NAMES[parse_path(path).metric],
                "name": f"{path} (percent, mean of {summary['n']})",
                "value": round(summary["metrics"][path]["mean"], 2),
            }
            for path in paths
        ],
    }


def _rows(summary: Mapping[str, Any], headline: Headline, metric: str) -> list[str]:
    """Return the paths of a metric that the run has, of one protocol: all classes, then the groups."""
    prefix = f"{headline.protocol}.{metric}"
    return [path for path in (prefix, *(f"{prefix}.{part}" for part in ("all", *GROUPS))) if path in summary["metrics"]]


def _title(summary: Mapping[str, Any], verdict: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return the first line, which says what the gate said, then every reason of a failure, and what the model is."""
    run, benchmark, n = summary["run"], verdict["state"]["benchmark"], summary["n"]
    reasons = [f"* {escape(line)}" for line in verdict["failed"]]
    seeds = ", ".join(map(str, summary["seeds"]))
    models = f"There is a model for each of {n} seeds ({seeds})" if n > 1 else f"There is one model, of seed {seeds}"
    own = any(row["run"] == run and row["verdict"] not in PASSING for row in verdict["rows"])
    if reasons and not own:
        reasons.append(f"* No comparison of {escape(run)} alone is among these.")
    return [
        f"# {escape(run)} of {escape(benchmark)}: the gate {escape(outcome(verdict))}",
        "",
        *([*reasons, ""] if reasons else []),
        f"An image classifier of {len(facts['classes'])} classes, trained by ltpipe, a pipeline for long-tailed data, "
        f"and exported to ONNX. {models}; the numbers are of the exported models. All runs side by side: "
        "[report.html](report.html).",
        "",
    ]


def _use(facts: Mapping[str, Any]) -> list[str]:
    size = facts["image_size"]
    return [
        "## How to run",
        "",
        "```sh",
        "ltpipe predict model.onnx images/ --out predictions.csv",
        "```",
        "",
        "`ltpipe predict` resizes pictures as training did, and needs no torch. In another program: the input `image` "
        f"is uint8, N x {size} x {size} x 3, RGB; the output `logits` has a column for each class. The model's "
        "metadata `ltpipe.classes` are their names, `ltpipe.preprocessing` says how a picture becomes the input.",
        "",
    ]


def _data_section(
    verdict: Mapping[str, Any], validation: Mapping[str, Any], subject: Subject, facts: Mapping[str, Any]
) -> list[str]:
    checks, counts, names = validation["expectations"], facts["classes_counts"], facts["classes"]
    more = f", and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else ""
    return [
        "## Data",
        "",
        f"Benchmark {escape(verdict['state']['benchmark'])}, data `{facts['data']}`: {validation['rows']:,} manifest "
        f"rows; {sum(e['success'] for e in checks)} of {len(checks)} expectations hold. Trained on {sum(counts):,} "
        f"images; the largest class has {max(counts):,} of them, the smallest {min(counts):,}.",
        "",
        *_table(*split_grid(subject.manifest)),
        "",
        f"Classes: {', '.join(map(escape, names[:MOST_CLASSES]))}{more}.",
        "",
        "Origin and licence of the images:",
        "",
        *(f"> {escape(line)}".rstrip() for line in subject.notice.strip().splitlines()),
        "",
    ]


def _recipe_section(facts: Mapping[str, Any]) -> list[str]:
    recipe = yaml.safe_dump(facts["parameters"], sort_keys=True, allow_unicode=True, width=1000).rstrip()
    return ["## Recipe", "", f"Code `{facts['code']}`, recipe `{facts['recipe']}`.", "", "```yaml", recipe, "```", ""]


def _results_section(summary: Mapping[str, Any], verdict: Mapping[str, Any], shown: Sequence[Headline]) -> list[str]:
    """Return every group's numbers, and what the gate compared of this run."""
    metrics, rows = summary["metrics"], [row for row in verdict["rows"] if row["run"] == summary["run"]]
    paths = [
        path for headline in shown for metric in (headline.metric, *OTHERS) for path in _rows(summary, headline, metric)
    ]
    results = [[path, *(number(metrics[path][key]) for key in ("mean", "std")), str(summary["n"])] for path in paths]
    keys = ("accepted", "mean", "delta", "margin")
    gate = [[row["metric"], *(number(row[key]) for key in keys), row["verdict"]] for row in rows]
    return [
        "## Results",
        "",
        "In percent, over n seeds. The groups many, medium and few are of classes, by their training images. A smaller "
        "ECE is better.",
        "",
        *_table(("metric", "mean", "std", "n"), results),
        "",
        "What the gate compared with the accepted baseline, in percentage points:",
        "",
        *(_table(("metric", "accepted", "measured", "difference", "margin", "verdict"), gate) if gate else [NONE]),
        "",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a markdown table of any texts."""
    return [f"| {' | '.join(map(_cell, head))} |", "|" + "---|" * len(head)] + [
        f"| {' | '.join(map(_cell, row))} |" for row in rows
    ]


def limits(
    summary: Mapping[str, Any], shown: Sequence[Headline], advice: Advice, facts: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what the numbers do not say, in sentences."""
    yield (
        f"It knows its {len(facts['classes'])} classes and no other. It answers with one of them for any picture, also "
        "for one that shows none of them, and its confidence does not tell."
    )
    yield (
        "The test images are of the same data set as the training images. Where classes have other shares, or pictures "
        "look different, expect other numbers."
    )
    for headline in shown:
        yield from _limits_of_protocol(summary, headline)
    yield _limit_of_seeds(summary)
    yield _limit_of_choice(summary["run"], advice)


def _limits_of_protocol(summary: Mapping[str, Any], headline: Headline) -> Iterator[str]:
    metrics, prefix = summary["metrics"], f"{headline.protocol}.{headline.metric}"
    sizes = f"{headline.smallest:,}"
    if headline.smallest != headline.largest:
        sizes = f"{headline.smallest:,} to {headline.largest:,}"
    images = f"{metrics[f'{headline.protocol}.n']['mean']:,.0f}"
    yield f"{escape(headline.protocol)}: the test split has {images} images, {sizes} of a class."
    groups = [f"{prefix}.{group}" for group in ("many", "few")]
    if all(path in metrics for path in groups):
        many, few = (metrics[path]["mean"] for path in groups)
        yield (
            f"{escape(headline.protocol)}: {headline.metric} is {number(many)} % on classes with many training images "
            f"and {number(few)} % on those with few, a difference of {number(many - few, sign=True)} points."
        )


def _limit_of_seeds(summary: Mapping[str, Any]) -> str:
    if summary["n"] == 1:
        return "One seed was trained: how far another one would be from these numbers is not known."
    return (
        f"The numbers are means of {summary['n']} models; a single one of them differs from the mean as the standard "
        "deviation says."
    )


def _limit_of_choice(run: str, advice: Advice) -> str:
    """Return what the validation images say of this run beside the others."""
    scores, name = advice.scores, escape(run)
    if not advice.selected:
        return "There are no validation images, so nothing but the test set compares the runs, and it must not choose."
    if run not in scores:
        return "The validation compared other runs: this one trains on another split."
    if run in advice.fitted and len(advice.fitted) < len(scores):
        return f"{name} chose a parameter on the validation images, so its score there is compared with none."
    scores = {other: score for other, score in scores.items() if other not in advice.fitted} or scores
    best, *close = contenders(scores)
    if run == best:
        names = ", ".join(map(escape, close))
        return (
            f"{name} is the best of {len(scores)} on the validation images, "
            + (f"but they do not separate it from {names}." if close else "by more than two standard errors.")
            if len(scores) > 1
            else f"{name} is the only run, so nothing was chosen."
        )
    if run in close:
        return f"The validation images prefer {escape(best)}, but do not separate it from {name}."
    return f"The validation images prefer {escape(best)}, by more than two standard errors."
