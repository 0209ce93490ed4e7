"""`ltpipe latency`: how long an exported model takes, as a ratio to a fixed network in the same run; no torch.

ltpipe latency model.onnx [--threads 1] [--max-ratio 3] [--out latency.json]

It is no stage of the graph and no metric of the gate: times differ from run to run, so `dvc repro` would give another
result each time, and a busy neighbour would fail a model that is as good as before. The gate is --max-ratio.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.serving.files import show
from ltpipe.serving.reference import SIZE, VERSION, build_reference
from ltpipe.serving.session import open_session, read_facts
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.identity import digest_bytes

BATCHES = (1, 64)
SLOW = 3  # exit code: as that of the gate


def measure_alternately(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds of each run in each round. The runs take turns, so that a busy moment meets all of them."""
    for run in runs.values():
        run()  # the first call allocates memory
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def summarise(model: np.ndarray, reference: np.ndarray, batch: int) -> dict[str, float]:
    """Return medians and the ratio of one batch size. model, reference: seconds of each round, R.

    The ratio is that of the fastest rounds: whatever else the machine does makes a round slower, never faster, and it
    hits the longer of the two more often, so that medians would differ by the load.
    """
    return {
        "milliseconds": 1000 * float(np.median(model)),
        "milliseconds_p95": 1000 * float(np.quantile(model, 0.95)),
        "images_per_second": batch / float(np.median(model)),
        "reference_milliseconds": 1000 * float(np.median(reference)),
        "ratio": float(model.min() / reference.min()),
    }


def measure_latency(content: bytes, provider: str, threads: int, rounds: int) -> dict[str, Any]:
    """Return time and throughput of a model at each batch size. Raises Refused if it is no model of ltpipe."""
    session, reference = (open_session(of, provider, threads) for of in (content, build_reference()))
    facts = read_facts(session)
    found = {}
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, *session.get_inputs()[0].shape[1:]), np.uint8)
        fixed = np.zeros((batch, 3, SIZE, SIZE), np.float32)
        runs = {
            "model": partial(session.run, ["logits"], {"image": images}),
            "reference": partial(reference.run, ["logits"], {"image": fixed}),
        }
        seconds = measure_alternately(runs, rounds)
        found[str(batch)] = summarise(seconds["model"], seconds["reference"], batch)
    known = {"cell": facts.get("cell"), "model": digest_bytes(content), "bytes": len(content)}
    how = {"provider": session.get_providers()[0], "threads": threads, "rounds": rounds, "reference": VERSION}
    return known | how | {"batches": found}


def find_slow(latency: dict[str, Any], max_ratio: float) -> list[str]:
    """Return a line for each batch size whose ratio to the reference is larger than `max_ratio`."""
    return [
        f"batch {batch}: {row['ratio']:.2f} times as long as the reference network, more than {max_ratio:g}"
        for batch, row in latency["batches"].items()
        if row["ratio"] > max_ratio
    ]


def to_text(latency: dict[str, Any]) -> str:
    """Return the measurement for a terminal."""
    lines = [
        f"{latency['cell']}: {latency['bytes'] / 1e6:.2f} MB, {latency['provider']}, {latency['threads']} threads, "
        f"{latency['rounds']} rounds",
        "batch    ms (median)    ms (95 %)    images/s    ratio to the reference network",
    ]
    for batch, row in latency["batches"].items():
        times = f"{row['milliseconds']:>13.3f} {row['milliseconds_p95']:>12.3f} {row['images_per_second']:>11.0f}"
        lines.append(f"{batch:>5} {times} {row['ratio']:>9.3f}")
    return "\n".join(lines) + "\n"


@click.command("latency")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of one operator.")
@click.option("--rounds", type=click.IntRange(min=1), default=50, show_default=True, help="Of both, by turns.")
@click.option("--max-ratio", type=click.FloatRange(min=0, min_open=True), help="Exit 3 if a batch takes longer.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True)
def command(model: Path, out: Path | None, max_ratio: float | None, **options: Any) -> None:
    """Time a MODEL (.onnx) with batches of 1 and 64, in milliseconds and as a ratio to a fixed network in the same run.

    Exit code 3: --max-ratio, and a batch size takes longer.
    """
    found = measure_latency(model.read_bytes(), options["provider"], options["threads"], options["rounds"])
    slow = [] if max_ratio is None else find_slow(found, max_ratio)
    click.echo(to_text(found), nl=False)
    if out:
        try:
            text = json.dumps(found | {"max_ratio": max_ratio, "slow": slow}, indent=1, allow_nan=False) + "\n"
            write_atomically(out, text.encode())
        except OSError as error:
            raise Refused(f"cannot write {show(out)}: {error.strerror}") from None
    for line in slow:
        click.echo(f"--max-ratio: {line}", err=True)
    click.get_current_context().exit(SLOW if slow else 0)


if __name__ == "__main__":
    command()
