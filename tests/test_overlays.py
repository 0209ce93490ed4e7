"""What `dvc plots show` and `dvc metrics show` draw: one line for each run, of means over its seeds."""

import json

import pandas as pd
import pytest
import yaml
from copied_project import ROOT

from ltpipe.config.spec import Refused
from ltpipe.evaluation.overlays import overlays, tabulate_reliability, tabulate_training
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise


@pytest.fixture(scope="module")
def cells(cell):
    return [cell(run, seed, wrong) for run, wrong in (("ce", 0.1), ("logit_adjust", 0.5)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def verdict(cells):
    pairs = (cells[:2], cells[2:])
    return {"summaries": [summarise(Reported(why="a test"), *(c.metrics for c in pair)) for pair in pairs]}


def test_each_run_has_one_mean_of_its_hardest_protocol(verdict, cells):
    means, _, _, _ = overlays(verdict, *(c.details for c in cells), *(c.log for c in cells))
    assert list(means) == ["glt"] and list(means["glt"]) == ["ce", "logit_adjust"]
    expected = verdict["summaries"][0]["metrics"]["glt.accuracy.all"]["mean"]
    assert means["glt"]["ce"] == pytest.approx(expected, abs=0.01) and means["glt"]["logit_adjust"] < 60


def test_protocols_and_runs_have_columns_of_their_own(verdict, cells):
    _, training, recall, reliability = overlays(verdict, *(c.details for c in cells), *(c.log for c in cells))
    lines = {f"{protocol}.{run}" for protocol in ("clt", "glt") for run in ("ce", "logit_adjust")}
    assert set(recall) == lines | {"train_images"} and set(reliability) == lines | {"confidence"}
    assert recall["train_images"].is_monotonic_increasing and len(recall) == recall["train_images"].nunique()
    assert list(training) == ["epoch"]  # the logs of these cells have no macro recall


def test_training_is_the_mean_over_seeds_and_a_run_that_ends_earlier_has_no_more_values():
    def log(run, seed, values):
        rows = {"epoch": range(1, len(values) + 1), "val_macro_recall": values, "cell": f"b.{run}.s{seed}"}
        return pd.DataFrame(rows)

    table = tabulate_training([log("a", 0, [10.0, 20.0]), log("a", 1, [20.0, 40.0]), log("b", 0, [5.0])])
    assert table["a"].tolist() == [15.0, 30.0] and table["b"].tolist()[0] == 5.0 and pd.isna(table["b"][1])


def test_the_bins_of_all_seeds_are_pooled_by_their_images():
    def cell(seed, n, accuracy):
        bins = [{"n": n, "confidence": 99.0, "accuracy": accuracy}]
        return {"cell": f"b.a.s{seed}", "protocols": {"lt": {"reliability": bins}}}

    table = tabulate_reliability([cell(0, 30, 100.0), cell(1, 10, 60.0)])
    assert table.to_dict("records") == [{"confidence": 96.67, "lt.a": 90.0}]


def test_details_of_another_cell_are_refused(verdict, cells):
    details = [c.details for c in cells]
    with pytest.raises(Refused, match=r"digits_glt\.ce\.s0"):
        overlays(verdict, *details[::-1], *(c.log for c in cells))


def test_dvc_yaml_has_one_plot_for_each_question_and_protocol_and_no_protocols_in_one_line():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    plots = {name: plot for entry in content["plots"] for name, plot in entry.items()}
    assert len(plots) == 1 + 2 * len(["clt", "glt"])
    for name, plot in plots.items():
        ((_, columns),) = plot["y"].items()
        assert len(columns) == len(set(columns)) >= 2 and plot["template"] == "runs"
        assert len({column.partition(".")[0] for column in columns if "." in column}) <= 1, name
    assert not [name for name, stage in content["stages"].items() if "plots" in stage]


def test_metrics_show_fits_in_120_columns_and_artifacts_are_models():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    (path,) = [path for stage in content["stages"].values() for path in stage.get("metrics", [])]
    runs = [artifact["desc"].partition(" ")[0] for artifact in content["artifacts"].values()]
    assert len(path) + sum(len(f"    glt.{run}") for run in runs) <= 120
    outs = {out for stage in content["stages"].values() for out in stage.get("outs", []) if isinstance(out, str)}
    assert {artifact["path"] for artifact in content["artifacts"].values()} <= outs
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 450


def test_the_template_of_the_plots_leaves_out_empty_values():
    template = json.loads((ROOT / ".dvc/plots/runs.json").read_text())
    assert "!== ''" in template["transform"][0]["filter"] and template["encoding"]["color"]["field"] == "field"
