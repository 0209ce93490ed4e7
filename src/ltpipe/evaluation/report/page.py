"""The page: report.html, one file that needs no network. The template is report.html beside this module.

What it says is a function of what was judged, to the byte. What the trainings cost is another number on every day, so
it is a page of its own, cost.html, which .dvcignore keeps out of the ledger, and which the first one shows inside.
Both are also well-formed XML, so that a test can read them with the standard library.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltpipe.evaluation.baseline import Accepted
from ltpipe.evaluation.headline import Headline, rank
from ltpipe.evaluation.measure import Evaluation
from ltpipe.evaluation.report import card, charts, classes, cost, matrices, mistakes, tables
from ltpipe.evaluation.report.cells import Cells, measured_runs
from ltpipe.evaluation.report.numbers import card_name, outcome
from ltpipe.evaluation.report.recommend import Advice, main_headline
from ltpipe.evaluation.report.style import Panel, marks, svg
from ltpipe.storage.table import Table

DRAWN_RUNS = 6  # whose confusion and reliability are drawn


class Subject(NamedTuple):
    """What the numbers are of. accepted: None if nothing was accepted of these data."""

    evaluation: Evaluation
    manifest: Table
    images: np.ndarray
    accepted: Accepted | None
    notice: str

    def test_rows(self, protocol: str) -> Table:
        """Return the manifest's rows of the protocol's test split."""
        return self.manifest[self.manifest["split"] == self.evaluation.protocols[protocol].test]


def render_page(
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Cells],
    shown: Sequence[Headline],
    advice: Advice,
    subject: Subject,
) -> str:
    """Return the page. advice.run is the run whose classes and mistakes are shown."""
    main = main_headline(verdict["primary"], shown)
    summaries, state = verdict["summaries"], verdict["state"]
    data = " ".join(sorted({d for s in summaries for d in s["data"]}))
    return _fill(
        "report.html",
        state=state,
        verdict=verdict,
        outcome=outcome(verdict),
        tone=_tone(verdict),
        advice=advice,
        main=main,
        shown=shown,
        looks=marks(list(runs)),
        cards={run: card_name(run) for run in runs},
        tables=_tables(verdict, claims, shown, main, advice),
        pictures=_pictures(summaries, runs, shown, advice.run, subject.manifest, main),
        classes=_classes(runs, main.protocol, advice.run, subject),
        card={"splits": card.split_grid(subject.manifest), "notice": subject.notice.strip()},
        facts=card.data_facts(state, validation, data),
        trained=card.trained_grid(runs),
        environment=card.environment_grid(runs),
        commands=card.commands(state["benchmark"], runs[advice.run].details[0]["cell"]),
    )


def render_cost(state: Mapping[str, Any], runs: Mapping[str, Cells]) -> str:
    """Return the page of what the trainings cost, which report.html shows inside."""
    return _fill("cost.html", state=state, looks=marks(list(runs)), cost=cost.spent_grid(runs))


def _fill(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(**values)


def _tone(verdict: Mapping[str, Any]) -> str:
    """Return how the verdict is coloured: good, bad, or neither because nothing was compared."""
    return "open" if verdict["baseline"] != "accepted" else "good" if verdict["passes"] else "bad"


def _tables(
    verdict: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    shown: Sequence[Headline],
    main: Headline,
    advice: Advice,
) -> dict[str, Any]:
    summaries = verdict["summaries"]
    ordered = [*rank(summaries, main), *(s for s in summaries if main.path not in s["metrics"])]
    groups = {h.protocol: tables.group_grid(rank(summaries, h), h) for h in shown}
    attributes = {h.protocol: tables.attribute_grid(rank(summaries, h), h.protocol) for h in shown}
    return {
        "gate": tables.gate_grid(verdict),
        "power": tables.power_grid(verdict["power"]) if verdict["power"] else None,
        "protocols": tables.protocol_grid(ordered, shown),
        "groups": groups,
        "attributes": {protocol: grid for protocol, grid in attributes.items() if grid},
        "scores": tables.score_grid(advice.scores) if advice.scores else None,
        "claims": tables.claims_grid(claims) if claims else None,
        "metrics": tables.metrics_grid(summaries),
        "runs": tables.runs_grid(summaries),
    }


def _pictures(
    summaries: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Cells],
    shown: Sequence[Headline],
    chosen: str,
    manifest: Table,
    main: Headline,
) -> dict[str, Any]:
    drawn = _drawn_runs(summaries, [main, *(h for h in shown if h != main)], chosen)
    training = [str(s) for s in manifest.loc[manifest["role"] == "train", "split"].unique()]
    panels: dict[str, list[Panel]] = {
        "groups": [charts.group_panel(summaries, h) for h in shown],
        "frequency": [charts.class_panel(runs, h.protocol) for h in shown],
        "training": charts.training_panels(runs),
        "tail": [charts.tail_panel(manifest[manifest["split"] == split], split) for split in training],
        "confusion": [matrices.confusion_panel(run, runs[run], protocol) for run, protocol in drawn.items()],
        "reliability": [matrices.reliability_panel(run, runs[run], protocol) for run, protocol in drawn.items()],
    }
    return {name: [{"alt": panel.alt, "data": svg(panel)} for panel in chart] for name, chart in panels.items()}


def _drawn_runs(summaries: Sequence[Mapping[str, Any]], shown: Sequence[Headline], chosen: str) -> dict[str, str]:
    """Return the runs that are drawn one by one, and by which protocol: the chosen one, then those that rank first."""
    found: dict[str, str] = {}
    for headline in shown:
        for summary in rank(summaries, headline):
            found.setdefault(summary["run"], headline.protocol)
    return dict(sorted(found.items(), key=lambda item: item[0] != chosen)[:DRAWN_RUNS])


def _classes(runs: Mapping[str, Cells], protocol: str, chosen: str, subject: Subject) -> dict[str, Any]:
    """Return what the page shows of classes: changes since accepted, the worst ones, and the chosen run's mistakes."""
    split, test = subject.evaluation.protocols[protocol].test, subject.test_rows(protocol)
    by_run = {}
    for run in measured_runs(runs, protocol):
        known = subject.accepted.runs.get(run) if subject.accepted else None
        before = classes.accepted_recall(known, test, split) if known else {}
        by_run[run] = classes.class_rows(runs[run], protocol, before)
    cells = runs[chosen]
    first, names = cells.predictions[0], cells.details[0]["classes"]
    wrong = mistakes.wrong_rows(first, subject.manifest, split)
    seeds = mistakes.share_of_seeds(cells.predictions, split)

    def pictures(rows: Table) -> list[mistakes.Mistake]:
        return mistakes.make_mistakes(rows, subject.images, names, seeds, len(cells.predictions))

    worst = classes.worst(by_run[chosen])
    grid = classes.change_grid(by_run)
    return {
        "change": grid if grid.rows else None,
        "sentence": classes.describe_change(by_run),
        "worst": [
            classes.worst_texts(row) | {"mistakes": pictures(wrong[wrong["label"] == row.label][: mistakes.OF_A_CLASS])}
            for row in worst
        ],
        "mistakes": pictures(wrong[: mistakes.MOST_CONFIDENT]),
        "seed": first.attrs["facts"]["seed"],
        "wrong": len(wrong),
        "split": split,
        "images": len(test),
    }
