"""The code gate: losses of the first steps of every method, step by step, against golden ones.

A change that should not change numbers keeps them; one that should says why in its commit and rewrites the file:
LTPIPE_WRITE_GOLDEN=1 uv run pytest tests/test_golden.py
"""

import json
import os
from pathlib import Path

import pytest
import tiny

from ltpipe.training import loop

GOLDEN = Path(__file__).parent / "golden/losses.json"
STEPS = 20
TOLERANCE = 1e-3  # relative; another processor rounds otherwise, and 20 steps carry it on


def measured(name, folder, monkeypatch):
    """Loss of each of the first steps, and the sum of the absolute weights at the end."""
    # a run that it starts from trains here, not under the eyes below
    task = tiny.task(folder, name, tiny.example(name), schedule=tiny.SCHEDULE.model_copy(update={"epochs": 5}))
    losses = []
    step = loop._step

    def noted(*arguments):
        sums = step(*arguments)
        losses.append(float(sums["loss"]) / sums["count"])
        return sums

    monkeypatch.setattr(loop, "_step", noted)
    weights, _, _ = loop.fit(task)
    size = sum(float(w.abs().sum()) for key, w in sorted(weights.items()) if key.startswith(("backbone", "head")))
    return {"losses": [round(loss, 6) for loss in losses[:STEPS]], "weights": round(size, 4)}


@pytest.mark.parametrize("name", tiny.NAMES)
def test_losses_are_the_golden_ones(name, tmp_path, monkeypatch):
    found = measured(name, tmp_path, monkeypatch)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("LTPIPE_WRITE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(golden | {name: found}, indent=1, sort_keys=True) + "\n")
        pytest.skip("written, not compared")
    assert name in golden, "a new method: LTPIPE_WRITE_GOLDEN=1 uv run pytest tests/test_golden.py"
    assert len(found["losses"]) == len(golden[name]["losses"])
    assert found["losses"] == pytest.approx(golden[name]["losses"], rel=TOLERANCE)
    assert found["weights"] == pytest.approx(golden[name]["weights"], rel=TOLERANCE)


def test_a_changed_loss_is_noticed(tmp_path, monkeypatch):
    from ltpipe.methods import ce

    def other(self, out, batch):
        return {"loss": 1.01 * super(ce.Method, self).loss(out, batch)["loss"]}

    monkeypatch.setattr(ce.Method, "loss", other, raising=False)
    golden = json.loads(GOLDEN.read_text())["ce"]["losses"]
    assert measured("ce", tmp_path, monkeypatch)["losses"] != pytest.approx(golden, rel=TOLERANCE)
