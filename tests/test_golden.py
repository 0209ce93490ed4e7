"""The losses of the first steps of every method, compared step by step with stored ones, the golden losses.

A change of the code that should not change numbers must keep them. One that should change numbers rewrites the file,
and its commit says why: LTPIPE_WRITE_GOLDEN=1 uv run pytest tests/test_golden.py
"""

import json
import os
from pathlib import Path

import pytest
import tiny

from ltpipe.training import loop

GOLDEN = Path(__file__).parent / "golden/losses.json"
STEPS = 20
TOLERANCE = 1e-3  # relative; processors round differently, and the differences grow over 20 steps


def measure(name, folder, monkeypatch):
    """Return the loss of each of the first steps, and the sum of the absolute weights at the end."""
    # If the method starts from a finished run, that run is trained here, before steps are recorded.
    task = tiny.task(folder, name, tiny.example(name), schedule=tiny.SCHEDULE.model_copy(update={"epochs": 5}))
    losses = []
    train_step = loop._train_step

    def recorded_step(*arguments):
        sums = train_step(*arguments)
        losses.append(float(sums["loss"]) / sums["count"])
        return sums

    monkeypatch.setattr(loop, "_train_step", recorded_step)
    weights, _, _, _ = loop.fit(task)
    size = sum(float(w.abs().sum()) for key, w in sorted(weights.items()) if key.startswith(("backbone", "head")))
    return {"losses": [round(loss, 6) for loss in losses[:STEPS]], "weights": round(size, 4)}


@pytest.mark.parametrize("name", tiny.NAMES)
def test_losses_are_the_golden_ones(name, tmp_path, monkeypatch):
    result = measure(name, tmp_path, monkeypatch)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("LTPIPE_WRITE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(golden | {name: result}, indent=1, sort_keys=True) + "\n")
        pytest.skip("written, not compared")
    assert name in golden, f"a new method: LTPIPE_WRITE_GOLDEN=1 uv run pytest tests/test_golden.py -k {name}"
    assert len(result["losses"]) == len(golden[name]["losses"])
    assert result["losses"] == pytest.approx(golden[name]["losses"], rel=TOLERANCE)
    assert result["weights"] == pytest.approx(golden[name]["weights"], rel=TOLERANCE)


def test_a_changed_loss_is_noticed(tmp_path, monkeypatch):
    from ltpipe.methods import ce

    def other(self, out, batch):
        return {"loss": 1.01 * super(ce.Method, self).loss(out, batch)["loss"]}

    monkeypatch.setattr(ce.Method, "loss", other, raising=False)
    golden = json.loads(GOLDEN.read_text())["ce"]["losses"]
    assert measure("ce", tmp_path, monkeypatch)["losses"] != pytest.approx(golden, rel=TOLERANCE)
