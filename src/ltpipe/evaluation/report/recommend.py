"""Which model to take, and why: by the validation images. The test set describes the models and never selects one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.evaluation.headline import Headline, rank
from ltpipe.evaluation.metrics import parse_path
from ltpipe.evaluation.report.cells import Cells, measured_runs
from ltpipe.storage.manifest import role_of
from ltpipe.storage.table import Table


class Score(NamedTuple):
    """Recall on the validation images, mean over classes, in percent: seed -> value; and the number of images.

    few: the mean over the seeds of the recall of the group few; None if no validation image is of it.
    """

    by_seed: dict[int, float]
    images: int
    few: float | None = None

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds; None for a single one."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else None


class Advice(NamedTuple):
    """The run that is shown in detail, the sentences that say why, and the validation scores, best first.

    fitted: runs that chose a parameter on the validation images. model: path of the run's model with the highest
    validation score, below the folder of data; None if nothing was selected.
    """

    run: str
    selected: bool  # by validation; else it is only the first of the ranking
    sentences: list[str]
    scores: dict[str, Score]
    fitted: Sequence[str] = ()
    model: str | None = None


def validation_score(predictions: Sequence[Table]) -> Score | None:
    """Return the score of one run from the predictions of its seeds; None if there are no validation images."""
    by_seed, few, images = {}, [], 0
    for table in predictions:
        rows = table[[role_of(split) == "val" for split in table["split"].astype(str)]]
        if rows.empty:
            return None
        right = rows["label"] == rows["predicted"]
        hits = right.groupby(rows["label"].to_numpy()).mean()
        by_seed[int(table.attrs["facts"]["seed"])], images = 100 * float(hits.mean()), len(rows)
        rare = hits[sorted(set(rows["label"][rows["group"] == "few"]))]
        few += [100 * float(rare.mean())] if len(rare) else []
    return Score(by_seed, images, float(np.mean(few)) if few else None)


def main_headline(primary: str, shown: Sequence[Headline]) -> Headline:
    """Return the headline of the protocol of the gate's primary metric; the first one if no run is measured by it."""
    protocol = parse_path(primary).protocol
    return next((headline for headline in shown if headline.protocol == protocol), shown[0])


def recommend(verdict: Mapping[str, Any], runs: Mapping[str, Cells], shown: Sequence[Headline]) -> Advice:
    """Return the advice among the runs of the main protocol."""
    headline = main_headline(verdict["primary"], shown)
    ranked = rank(verdict["summaries"], headline)
    found = {run: validation_score(runs[run].predictions) for run in measured_runs(runs, headline.protocol)}
    scores = {run: score for run, score in found.items() if score is not None}
    if len(scores) < len(found):
        return Advice(ranked[0]["run"], False, _describe_ranking(ranked, headline), {})
    scores = dict(sorted(scores.items(), key=lambda item: -item[1].mean))
    fitted = [run for run in scores if any(_chose_there(table) for table in runs[run].predictions)]
    fair = {run: score for run, score in scores.items() if run not in fitted} or scores
    close, best = contenders(fair), choose(fair)
    sentences = [*_describe_choice(best, close, fair), *_describe_fitted(fitted, len(scores))]
    sentences += _describe_test(best, ranked, headline) + _warn(best, verdict)
    sentences += _describe_unrecognised(runs[best], headline.protocol)
    seeds = fair[best].by_seed
    model = _model(runs[best], max(seeds, key=lambda seed: seeds[seed]))
    return Advice(
        best,
        True,
        [*sentences, f"Its model with the best validation score, in the folder of data: {model}"],
        scores,
        fitted,
        model,
    )


def contenders(scores: Mapping[str, Score]) -> list[str]:
    """Return the run with the highest mean, and those that the validation does not tell from it."""
    first = max(scores, key=lambda run: scores[run].mean)
    return [first, *(run for run in scores if run != first and not is_clear(scores[first], scores[run]))]


def choose(scores: Mapping[str, Score]) -> str:
    """Return the run to take: of the contenders the one that is best on the few.

    Where the mean does not separate two runs, the one that forgets the rare classes is the worse choice. One seed
    separates nothing, so with it the few would choose among all runs: then the mean decides.
    """
    close = contenders(scores)
    return max(close, key=lambda run: (scores[run].few or 0.0, scores[run].mean)) if _repeated(scores) else close[0]


def _repeated(scores: Mapping[str, Score]) -> bool:
    return all(len(score.by_seed) > 1 for score in scores.values())


def _model(cells: Cells, seed: int) -> str:
    """Return the path of a run's exported model, as the catalog has it, below the folder of data."""
    cell = next(t.attrs["facts"]["cell"] for t in cells.predictions if int(t.attrs["facts"]["seed"]) == seed)
    return f"06_models/{cell.replace('.', '/')}/model.onnx"


def _describe_ranking(ranked: Sequence[Mapping[str, Any]], headline: Headline) -> list[str]:
    first = ranked[0]["run"]
    return [
        "No model is recommended: the data have no validation images, and the test set never selects.",
        f"{first} has the highest {headline.path} ({_value(ranked[0]['metrics'][headline.path])}). This describes the "
        "test images; it does not select a model.",
    ]


def _value(spread: Mapping[str, Any]) -> str:
    return f"{spread['mean']:.2f}" + (f" ± {spread['std']:.2f}" if spread["std"] is not None else "")


def _describe_choice(best: str, close: Sequence[str], scores: Mapping[str, Score]) -> list[str]:
    """Return why the best one is taken, and which others the validation cannot tell from it."""
    score, others = scores[best], [run for run in close if run != best]
    if len(scores) == 1:
        return [f"{best} is the only run, so there is nothing to choose."]
    n = len(score.by_seed)
    number = _value({"mean": score.mean, "std": score.std})
    lines = [
        f"Recommended: {best}. Its recall (mean over classes) on the {score.images} validation images is {number} %, "
        f"{n} seed{'s' * (n > 1)}. The test set took no part in this choice."
    ]
    if not others:
        return [*lines, "Its lead over every other run is larger than two standard errors."]
    told = ", ".join(f"{run} ({scores[run].mean:.2f} %)" for run in others)
    lines.append(f"By that score the validation images do not separate it from {told}")
    rare = ", ".join(f"{scores[run].few:.2f}" for run in others) if score.few is not None else ""
    on_few = f"; of these it is the best on the few: {score.few:.2f} % against {rare}"
    lines[-1] += f"{on_few if rare and _repeated(scores) else ''}."
    return lines


def _chose_there(predictions: Table) -> bool:
    """Tell whether the run chose a parameter by its recall on the validation images.

    The method's `finish` says so by a fact <parameter>_macro_recall (tau of logit adjustment, l2 of linear_probe).
    """
    return any(fact.endswith("_macro_recall") for fact in predictions.attrs["facts"].get("method", {}))


def _describe_fitted(runs: Sequence[str], every: int) -> list[str]:
    """Return which runs chose a parameter on the validation images. every: number of all runs."""
    if not runs:
        return []
    if len(runs) == every:
        return ["Every run chose a parameter on these very images, so all these scores are somewhat too good."]
    return [
        f"Not compared with the others: {', '.join(runs)} chose a parameter on these very images, on which the score "
        "is therefore too good."
    ]


def is_clear(better: Score, other: Score) -> bool:
    """Tell whether the mean difference over the common seeds is larger than two standard errors.

    Runs that are equal over the seeds (a convex loss) have no error of that kind: then it is that of the images, as if
    both runs were measured on images of their own.
    """
    shared = sorted(set(better.by_seed) & set(other.by_seed))
    pairs = np.array([better.by_seed[seed] - other.by_seed[seed] for seed in shared])
    if len(pairs) < 2:
        return False
    error = pairs.std(ddof=1) / np.sqrt(len(pairs)) or _error_of_images(better, other)
    return bool(pairs.mean() > 2 * error)


def _error_of_images(*scores: Score) -> float:
    """Return the standard error of the difference of two shares of the validation images, in percentage points."""
    return float(np.sqrt(sum(score.mean * (100 - score.mean) / score.images for score in scores)))


def _describe_test(best: str, ranked: Sequence[Mapping[str, Any]], headline: Headline) -> list[str]:
    names = [summary["run"] for summary in ranked]
    value = _value(ranked[names.index(best)]["metrics"][headline.path])
    return [f"On the test images it has {headline.path} {value} %, place {names.index(best) + 1} of {len(names)}."]


def _describe_unrecognised(cells: Cells, protocol: str) -> list[str]:
    """Return which classes the run recognises in no test image, with any seed."""
    names, table = cells.details[0]["classes"], cells.tables(protocol)[0]
    dead = [
        names[row["label"]] for row, most in zip(table, cells.recall(protocol).max(axis=0), strict=True) if not most
    ]
    shown = ", ".join(map(str, dead[:10])) + (f" and {len(dead) - 10} more" if len(dead) > 10 else "")
    return [f"No test image of these classes is recognised, with any seed: {shown}."] if dead else []


def _warn(best: str, verdict: Mapping[str, Any]) -> list[str]:
    """Return a warning if the gate does not let the recommended run pass."""
    failed = [row["metric"] for row in verdict["rows"] if row["run"] == best and row["verdict"] == "regressed"]
    return [f"But the gate found it worse than accepted in {', '.join(failed)}: find out why first."] if failed else []
