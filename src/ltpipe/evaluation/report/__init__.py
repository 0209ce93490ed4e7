"""Stage `report`: a page for the browser, a short text for terminals and pull requests, a model card for each run.

It is written before the gate runs, so that a failed run has a report too.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import Accepted, read_accepted
from ltpipe.evaluation.claims import Claims, check_claims
from ltpipe.evaluation.headline import headlines
from ltpipe.evaluation.measure import Evaluation
from ltpipe.evaluation.report.cells import group_cells
from ltpipe.evaluation.report.charts import sheets
from ltpipe.evaluation.report.classes import recalls
from ltpipe.evaluation.report.cost import costs_of_runs
from ltpipe.evaluation.report.model_card import render_card
from ltpipe.evaluation.report.numbers import card_name
from ltpipe.evaluation.report.page import Subject, render_cost, render_page
from ltpipe.evaluation.report.recommend import recommend
from ltpipe.evaluation.report.text import render_markdown
from ltpipe.recipe.cell import require_cell
from ltpipe.storage.table import Table

SHOWN = ("cell", "recipe", "code", "data")  # what details, training logs and predictions say of their cell


def report(
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    claims: Claims,
    evaluation: Evaluation,
    manifest: Table,
    images: np.ndarray,
    accepted: Mapping[str, Any] | None,
    notice: str,
    *cells: Mapping[str, Any] | Table | None,
) -> dict[str, bytes]:
    """Return file name -> content: report.html, report.md, the pictures that it shows, cost.html, model_card_<run>.md.

    As data: cost.json (`costs_of_runs`) and classes.json (`recalls`). What is called cost is outside of the ledger.

    images: uint8, N x H x W x 3, by the manifest's `row`; only the rows that are shown are read. cells: the details of
    every run and seed, then their training logs, then their predictions, then what their trainings cost, each in the
    order of the cells that were judged; Kedro passes them as one list. Raises Refused if details, a log or predictions
    are of another cell, recipe, code or data than the metrics that were judged. A cost of another checkpoint is left
    out: it is outside of the ledger.
    """
    summaries = verdict["summaries"]
    _require_validation(validation, summaries)
    judged = [cell for summary in summaries for cell in summary["cells"]]
    grouped = group_cells(*_parts(cells, judged))
    shown = headlines([cell for run in grouped.values() for cell in run.details])
    claimed = check_claims(claims, summaries)
    advice = recommend(verdict, grouped, shown)
    subject = Subject(evaluation, manifest, images, _read(accepted, verdict), notice)
    pictures = sheets(summaries, grouped, shown)
    page = render_page(verdict, validation, claimed, grouped, shown, advice, subject)
    text = render_markdown(verdict, validation, list(pictures), shown, advice.sentences)
    cards = {
        card_name(s["run"]): render_card(s, verdict, validation, grouped[s["run"]], shown, advice, subject).encode()
        for s in summaries
    }
    pages = {"report.html": page, "report.md": text, "cost.html": render_cost(verdict["state"], grouped)}
    data = {
        "cost.json": costs_of_runs(grouped),
        "classes.json": recalls(grouped, evaluation, advice, verdict["state"]["digest"]),
    }
    texts = pages | {name: json.dumps(values, sort_keys=True, allow_nan=False) for name, values in data.items()}
    return {name: content.encode() for name, content in texts.items()} | pictures | cards


class _Parts(NamedTuple):
    details: Sequence[Mapping[str, Any]]
    logs: Sequence[Table]
    predictions: Sequence[Table]
    costs: Sequence[Mapping[str, Any] | None]


def _parts(cells: Sequence[Any], judged: Sequence[Mapping[str, Any]]) -> _Parts:
    """Return the four kinds of what the cells left. Raises Refused if one is not of the cell that was judged."""
    n = len(judged)
    details, logs, tables, costs = (cells[k * n : (k + 1) * n] for k in range(4))
    for cell, detail, log, predictions in zip(judged, details, logs, tables, strict=True):
        asked = {key: cell[key] for key in SHOWN}
        require_cell("the details", detail, asked)
        require_cell("the training log", log.iloc[0].to_dict(), asked)
        require_cell("the table of predictions", predictions.attrs["facts"], asked)
    known = [
        cost if cost and cost.get("checkpoint") == cell["checkpoint"] else None
        for cell, cost in zip(judged, costs, strict=True)
    ]
    return _Parts(details, logs, tables, known)


def _read(accepted: Mapping[str, Any] | None, verdict: Mapping[str, Any]) -> Accepted | None:
    """Return the baseline that was compared with; None if there is none, or if it is of other data."""
    if accepted is None:
        return None
    baseline = read_accepted(accepted, verdict["state"]["benchmark"])
    data = {data for summary in verdict["summaries"] for data in summary["data"]}
    return baseline if data == {baseline.data} else None


def _require_validation(validation: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> None:
    """Raise Refused if the validation is of another manifest than the one that the cells were measured on."""
    measured = sorted({data.split("-")[0] for s in summaries for data in s["data"]})
    validated = validation.get("manifest")
    if measured != [validated]:
        raise Refused(
            f"the validation is of manifest {validated}, the cells are of {', '.join(measured)}: draw it again "
            "(--tags=fetch,cluster,split), or dvc repro"
        )
