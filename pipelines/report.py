"""report: summarise each run over its seeds, judge all runs together, and write the report and the ledger's views."""

from kedro.pipeline import Node, Pipeline

from ltpipe.evaluation.judge import judge
from ltpipe.evaluation.overlays import overlays
from ltpipe.evaluation.report import report
from ltpipe.evaluation.summary import summarise


def create(name: str, runs: dict[str, list[str]]) -> Pipeline:
    """Return the stage of one benchmark. runs: run -> its seeds."""
    summaries = [
        Node(
            summarise,
            [f"params:{name}.runs.{run}.reported", *(f"{name}.{run}.{seed}.metrics" for seed in runs[run])],
            f"{name}.{run}.summary",
            name="summarise",
            namespace=f"{name}.{run}",
            tags="report",
        )
        for run in runs
    ]
    blocks = [f"{name}.manifest", f"{name}.accepted", f"params:{name}.gate", f"params:{name}.evaluate"]
    judged = [*blocks, f"{name}.state", *(f"{name}.{run}.summary" for run in runs)]
    details, logs, predictions, costs = (
        [f"{name}.{run}.{seed}.{table}" for run in runs for seed in runs[run]]
        for table in ("details", "log", "predictions", "cost")
    )
    data = [f"{name}.{part}" for part in ("manifest", "images", "accepted", "notice")]
    stated = [f"params:{name}.claims", f"params:{name}.evaluate"]
    shown = [f"{name}.verdict", f"{name}.validation", *stated, *data, *details, *logs, *predictions, *costs]
    drawn = [f"{name}.{table}" for table in ("means", "training", "recall", "reliability")]
    return Pipeline(
        [
            *summaries,
            Node(judge, judged, f"{name}.verdict", name="judge", namespace=name, tags="report"),
            Node(report, shown, f"{name}.report", name="report", namespace=name, tags="report"),
            Node(overlays, [f"{name}.verdict", *details, *logs], drawn, name="overlay", namespace=name, tags="report"),
        ]
    )
