"""Stage `report`: a page for the browser, a short text for terminals and pull requests, a model card for each run.

It is written before the gate runs, so that a failed run has a report too.
"""

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
from ltpipe.evaluation.report.model_card import render_card
from ltpipe.evaluation.report.page import Subject, render_page
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
    *cells: Mapping[str, Any] | Table,
) -> dict[str, bytes]:
    """Return file name -> content: report.html, report.md, the pictures that it shows, and model_card_<run>.md.

    images: uint8, N x H x W x 3, by the manifest's `row`; only the rows that are shown are read. cells: the details of
    every run and seed, then their training logs, then their predictions, each in the order of the cells that were
    judged; Kedro passes them as one list. Raises Refused if one of them is of another cell, recipe, code or data than
    the metrics that were judged.
    """
    summaries = verdict["summaries"]
    _require_validation(validation, summaries)
    judged = [{key: cell[key] for key in SHOWN} for summary in summaries for cell in summary["cells"]]
    grouped = group_cells(*_parts(cells, judged))
    shown = headlines([cell for run in grouped.values() for cell in run.details])
    claimed = check_claims(claims, summaries)
    advice = recommend(verdict, grouped, shown)
    subject = Subject(evaluation, manifest, images, _read(accepted, verdict), notice)
    pictures = sheets(summaries, grouped, shown)
    page = render_page(verdict, validation, claimed, grouped, shown, advice, subject)
    text = render_markdown(verdict, validation, list(pictures), shown, advice.sentences)
    cards = {
        f"model_card_{s['run']}.md": render_card(
            s, verdict, validation, grouped[s["run"]], shown, advice, subject
        ).encode()
        for s in summaries
    }
    return {"report.html": page.encode(), "report.md": text.encode(), **pictures, **cards}


class _Parts(NamedTuple):
    details: Sequence[Mapping[str, Any]]
    logs: Sequence[Table]
    predictions: Sequence[Table]


def _parts(cells: Sequence[Any], judged: Sequence[Mapping[str, Any]]) -> _Parts:
    """Return the three kinds of what the cells left. Raises Refused if one is not of the cell that was judged."""
    n = len(judged)
    parts = _Parts(cells[:n], cells[n : 2 * n], cells[2 * n :])
    for asked, detail, log, predictions in zip(judged, *parts, strict=True):
        require_cell("the details", detail, asked)
        require_cell("the training log", log.iloc[0].to_dict(), asked)
        require_cell("the table of predictions", predictions.attrs["facts"], asked)
    return parts


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
