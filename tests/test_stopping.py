"""A training is stopped, killed, or finds damaged resume points: nothing is lost, and the weights stay the same.

Processes are forked, so that they need not import torch anew; the signals are real ones.
"""

import logging
import multiprocessing
import os
import random
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import copied_project
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from test_training import MODEL, RUN, SCHEDULE, prepared, problem, run  # noqa: F401 - `prepared` is a fixture

from ltpipe.hooks import CellsOfARun, FinishedScratch
from ltpipe.interface.phases import Augment
from ltpipe.training import checkpoint, finished, loop, progress, signals
from ltpipe.training.pictures import Pictures
from ltpipe.training.scratch import FINISHED, discard, previous
from ltpipe.training.train import train

FORK = multiprocessing.get_context("fork")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LONGER = SCHEDULE.model_copy(update={"epochs": 8, "save_every": None})
STEPS = 24


def start(work, folder: Path, **options) -> multiprocessing.Process:
    """Start `work` in a process with a group of its own, whose stderr is the file `said` in `folder`."""

    def child():
        os.setsid()
        folder.mkdir(exist_ok=True)
        os.dup2(os.open(folder / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        for number in CODES:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        logging.getLogger("ltpipe.training").addHandler(logging.StreamHandler(os.fdopen(2, "w")))
        work(**options)

    process = FORK.Process(target=child)
    process.start()
    return process


def slowly(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float) -> Path:
    """Let each step take its time, and note it in a file, so that a test can choose when to send a signal."""
    path, train_step = folder / "steps", loop._train_step

    def step(*arguments):
        sums = train_step(*arguments)
        with path.open("a") as file:
            file.write(".")
        time.sleep(seconds)
        return sums

    monkeypatch.setattr(loop, "_train_step", step)
    return path


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size >= size):
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.002)


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_at_a_random_step_keeps_all_steps_and_changes_no_bit(tmp_path, monkeypatch, number):
    whole = run(tmp_path / "whole", schedule=LONGER)
    folder, draw = tmp_path / "stopped", random.Random(int(number))
    with monkeypatch.context() as patch:
        taken = slowly(patch, tmp_path, 0.02)
        before = 0
        for _ in range(3):
            process = start(run, folder, tmp_path=folder, schedule=LONGER)
            wait_for(taken, before + draw.randint(1, 7))
            os.kill(process.pid, number)
            process.join(120)
            assert process.exitcode == CODES[number]
            before = taken.stat().st_size
            saved = checkpoint.load(folder / "resume.pt", _fingerprint(folder), checkpoint.RESUME)
            assert 3 * saved["epoch"] + saved["step"] == before, "a step was lost"
    said = (folder / "said").read_text()
    assert said.count(f"toy.ce.s0: {number.name}: kept epoch ") == 3 and "To go on: " in said
    assert "Traceback" not in said
    steps = slowly(monkeypatch, tmp_path, 0)
    assert run(folder, schedule=LONGER) == whole
    assert steps.stat().st_size == STEPS


def _fingerprint(folder: Path) -> str:
    content = (folder / "resume.pt").read_bytes()[checkpoint.START :]
    (folder / "payload").write_bytes(content)
    return torch.load(folder / "payload", weights_only=True)["fingerprint"]


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    taken = slowly(monkeypatch, tmp_path, 100)
    process = start(run, tmp_path / "out", tmp_path=tmp_path / "out", schedule=LONGER)
    wait_for(taken, 1)
    (tmp_path / "out/said").write_text("")  # what was said before the signal
    os.kill(process.pid, signal.SIGTERM)
    wait_for(tmp_path / "out/said", 1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(50)
    assert process.exitcode == -signal.SIGTERM
    assert not (tmp_path / "out/resume.pt").exists()


def test_handlers_are_put_back_and_what_was_ignored_stays_so():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with signals.Signals() as received:
        os.kill(os.getpid(), signal.SIGHUP)
        assert received.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert received.received == signal.SIGTERM
    signal.signal(signal.SIGHUP, ignored)
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def opened(row: int) -> Image.Image:
    time.sleep(0.02)
    return Image.fromarray(np.full((12, 12, 3), row, np.uint8))


def test_a_group_that_is_stopped_keeps_its_step_and_its_workers_say_nothing(tmp_path, monkeypatch):
    """Ctrl-C reaches every process of the group, the workers too."""
    schedule = tiny.SCHEDULE.model_copy(update={"augment": Augment(resized_crop=(0.5, 1.0)), "save_every": None})
    import torchvision.transforms  # noqa: F401 - before the processes are forked, each of which would take seconds for it

    pictures = Pictures(opened, np.arange(len(tiny.TRAIN.labels)), tiny.SIZE, 2)
    case = replace(tiny.task(tmp_path / "out", "ce", schedule=schedule), pictures=pictures)
    taken = slowly(monkeypatch, tmp_path, 0.05)

    def work():
        with case.signals:
            finished.fit(case)

    for number, code in CODES.items():
        taken.unlink(missing_ok=True)
        discard(tmp_path / "out")
        process = start(work, tmp_path / "out")
        wait_for(taken, 2)
        os.killpg(process.pid, number)
        process.join(120)
        said = (tmp_path / "out/said").read_text()
        assert process.exitcode == code, said
        assert "Traceback" not in said and "worker" not in said
        assert case.resume.exists()


def test_a_kill_between_the_last_step_and_the_checkpoint_loses_nothing(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", schedule=LONGER)
    manifest, images = problem()

    def work():
        train(manifest, images, tmp_path / "out", RUN, LONGER, MODEL, 0, cell="toy.ce.s0")
        os.kill(os.getpid(), signal.SIGKILL)

    process = start(work, tmp_path / "out")
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.setattr(loop, "_train_step", None)  # no step is taken again
    assert run(tmp_path / "out", schedule=LONGER) == whole
    assert not list((tmp_path / "out").glob("*.pt"))


def test_a_damaged_finished_training_is_trained_again(tmp_path, caplog):
    whole = run(tmp_path / "whole")
    manifest, images = problem()
    train(manifest, images, tmp_path, RUN, SCHEDULE, MODEL, 0, cell="toy.ce.s0")
    (tmp_path / FINISHED).write_bytes(b"x" * 1000)
    assert run(tmp_path) == whole
    assert f"{tmp_path / FINISHED} is damaged, not used" in caplog.text


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> loop.Task:
    """Return a training that was killed after its n-th resume point."""
    case = tiny.task(folder, "ce")
    with monkeypatch.context() as patch, pytest.raises(tiny.Killed):
        patch.setattr(checkpoint, "save_resume", tiny.Killer(after=after))
        loop.fit(case)
    return case


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE = {
    "a flipped bit": flipped,
    "garbage": lambda content: b"\x80not a resume point",
    "empty": lambda content: b"",
    "cut": lambda content: content[:-100],
}
# with a right checksum: nothing that this code writes, but nothing else may be done with it either
WRONG = {
    "a list": lambda state: [1, 2],
    "missing keys": lambda state: {key: state[key] for key in ("fingerprint", "epoch", "weights")},
    "epoch 99": lambda state: state | {"epoch": 99},
    "step 99": lambda state: state | {"step": 99},
    "phase 5": lambda state: state | {"phase": 5},
    "other weights": lambda state: state | {"weights": {"x": torch.zeros(1)}},
    "no momenta": lambda state: state | {"optimiser": {}},
    "no generator": lambda state: state | {"rng": {}},
}


def spoil(path: Path, name: str) -> None:
    """Damage a resume point, or write one of another content with a right checksum."""
    content = path.read_bytes()
    if name in DAMAGE:
        path.write_bytes(DAMAGE[name](content))
        return
    (path.parent / "payload").write_bytes(content[checkpoint.START :])
    state = torch.load(path.parent / "payload", weights_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "dict", lambda value: value, raising=False)  # so that a list can be written
        path.write_bytes(checkpoint.pack(WRONG[name](state)))


@pytest.mark.parametrize("both", [False, True], ids=["newest", "both"])
@pytest.mark.parametrize("name", [*DAMAGE, *WRONG])
def test_a_wrong_resume_point_is_never_used(tmp_path, monkeypatch, caplog, name, both):
    expected = loop.fit(tiny.task(tmp_path / "whole", "ce"))
    case = interrupted(tmp_path / "out", monkeypatch, after=4)
    for path in (case.resume, previous(case.resume))[: 1 + both]:
        spoil(path, name)
    caplog.clear()
    taken = []
    monkeypatch.setattr(
        loop, "_add_sums", lambda totals, more, add=loop._add_sums: taken.append(1) or add(totals, more)
    )
    result = loop.fit(case)
    assert tiny.same(result[0], expected[0]) and result[1:3] == expected[1:3]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(case.resume) in warning and "\n" not in warning
    assert warning.endswith("starting over" if both else "going on from the resume point before it")
    assert len(taken) == (6 if both else 3)  # of two epochs of three steps, of which three are in the point before


def test_the_point_before_a_damaged_one_is_not_pushed_out_by_it(tmp_path, monkeypatch):
    case = interrupted(tmp_path, monkeypatch, after=4)
    good = previous(case.resume).read_bytes()
    spoil(case.resume, "garbage")
    with monkeypatch.context() as patch, pytest.raises(tiny.Killed):
        patch.setattr(checkpoint, "write_atomically", lambda path, content: (_ for _ in ()).throw(tiny.Killed))
        loop.fit(case)
    assert previous(case.resume).read_bytes() == good


def test_what_a_killed_writer_left_is_removed_at_the_next_start(tmp_path):
    case = tiny.task(tmp_path, "ce")
    left = [tmp_path / ".resume.pt.123.tmp", tmp_path / ".finished.pt.4.tmp"]
    for path in (*left, tmp_path / "checkpoint.safetensors"):
        path.write_bytes(b"x")
    loop.fit(case)
    assert not any(path.exists() for path in left) and (tmp_path / "checkpoint.safetensors").exists()


def test_resume_points_come_by_time(tmp_path, monkeypatch):
    now = time.monotonic()
    clock = (now + 25 * number for number in range(10**6))  # each look at the clock is 25 s later than the one before
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    saved = []
    monkeypatch.setattr(checkpoint, "save_resume", lambda path, state: saved.append(state["step"]))
    for minutes, expected in ((None, 0), (2.0, 1), (0.1, 2)):
        saved.clear()
        case = tiny.task(tmp_path, "ce", schedule=tiny.SCHEDULE.model_copy(update={"save_every": None}))
        loop.fit(replace(case, schedule=case.schedule.model_copy(update={"save_minutes": minutes})))
        assert len(saved) >= expected and bool(saved) == bool(expected), minutes
    assert tiny.Schedule(epochs=1, batch=2, lr=1, weight_decay=0).save_minutes == 2.0


def test_the_step_at_which_a_loss_is_no_number_is_named_with_the_last_good_resume_point(tmp_path, monkeypatch):
    schedule = tiny.SCHEDULE.model_copy(update={"epochs": 3, "save_every": 3})
    train_step, taken = loop._train_step, []

    def spoilt(*arguments):
        sums = train_step(*arguments)
        taken.append(1)
        return sums | {"loss": sums["loss"] * float("nan")} if len(taken) == 5 else sums

    monkeypatch.setattr(loop, "_train_step", spoilt)
    case = tiny.task(tmp_path, "ce", schedule=schedule)
    named = "tiny.ce: loss is nan in epoch 2 of 3, step 2 of 3; .* last good resume point: epoch 1 of 3, step 3 of 3"
    with pytest.raises(loop.Diverged, match=named) as diverged:
        loop.fit(case)
    assert diverged.value.exit_code == 4
    assert checkpoint.load(case.resume, case.fingerprint, checkpoint.RESUME)["epoch"] == 1


def test_weights_that_are_no_numbers_are_never_kept(tmp_path, monkeypatch):
    train_step = loop._train_step

    def spoilt(task, state, *rest):
        sums = train_step(task, state, *rest)
        next(state.network.parameters()).data.fill_(float("inf"))
        return sums

    monkeypatch.setattr(loop, "_train_step", spoilt)
    with pytest.raises(
        loop.Diverged, match=r"weights of backbone\..* are not finite in epoch 1; .* resume point: none"
    ):
        loop.fit(tiny.task(tmp_path, "ce"))
    assert not list(tmp_path.iterdir())


def test_macro_recall_is_the_mean_over_the_classes_that_are_there():
    labels = np.array([0, 0, 0, 0, 2, 2, 5])
    correct = np.array([True, True, True, False, True, False, False])
    assert loop.macro_recall(labels, correct) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    from sklearn.metrics import recall_score

    predicted = np.where(correct, labels, (labels + 2) % 6)
    assert loop.macro_recall(labels, correct) == pytest.approx(
        recall_score(labels, predicted, labels=[0, 2, 5], average="macro")
    )


def test_an_estimate_is_said_once_and_again_if_it_moves(monkeypatch, caplog):
    caplog.set_level("INFO", "ltpipe.training")
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress("a.b.s0")
    bar.begin_epoch(0, 32, 100, 0)
    for step in range(1, 200):
        now[0] += 9.0 if step < 62 else 45.0
        if bar.step():
            bar.looked()
    bar.close()
    first, *again = [record.getMessage() for record in caplog.records]
    assert first == "a.b.s0: about 8 h in all: 9.0 s a step, 3,200 steps; Ctrl-C keeps what was trained"
    assert 1 <= len(again) <= 3
    assert progress.estimate(0.012, 204) == "about 2 s in all: 12 ms a step, 204 steps"


class Node:
    """What the hooks see of a node of Kedro."""

    def __init__(self, namespace: str, trains: bool = True) -> None:
        self.namespace, self.name = namespace, f"{namespace}.{'train' if trains else 'export'}"
        self.inputs = [f"{namespace}.scratch" if trains else f"{namespace}.checkpoint", "raw_x"]
        self.outputs = [f"{namespace}.checkpoint", f"{namespace}.log"]
        self.tags = {"train" if trains else "export"}


def test_kedro_keeps_the_points_until_the_last_output_is_saved(tmp_path):
    class Catalog:
        def get(self, name):
            return type("Dataset", (), {"path": tmp_path / name})

    hook, node = FinishedScratch(), Node("x.ce.s0")
    kept = tmp_path / "x.ce.s0.scratch" / FINISHED
    kept.parent.mkdir()
    kept.write_bytes(b"x")
    hook.before_node_run(node, Catalog())
    hook.after_dataset_saved("x.ce.s0.checkpoint", node)
    assert kept.exists()
    hook.after_dataset_saved("x.ce.s0.log", Node("x.ce.s1"))
    assert kept.exists()
    hook.after_dataset_saved("x.ce.s0.log", node)
    assert not kept.exists()


def test_kedro_says_the_number_of_the_cell(caplog):
    caplog.set_level("INFO", "ltpipe")
    nodes = [Node("x.ce.s0"), Node("x.ce.s0", trains=False), Node("x.ce.s1")]
    hook = CellsOfARun()
    hook.before_pipeline_run(type("Pipeline", (), {"nodes": nodes}))
    for node in nodes:
        hook.before_node_run(node)
    assert [record.getMessage() for record in caplog.records] == [
        "cell 1 of 2: x.ce.s0",
        "x.ce.s0: export",
        "cell 2 of 2: x.ce.s1",
    ]


@pytest.mark.slow
def test_kedro_run_stops_with_one_line_and_goes_on(tmp_path):
    folder = copied_project.copy_project(tmp_path / "copy")
    command = ["kedro", "run", "--pipeline=digits_glt", "--tags=parameters,fetch,split,train"]
    process = copied_project.start(folder, *command)
    said = ""
    while " epoch 2: " not in said:
        said += (line := process.stdout.readline())
        assert line, said
    cell = re.search(r"training: (\S+) epoch 2: ", said)[1]
    process.send_signal(signal.SIGTERM)
    said += process.communicate()[0]
    assert process.returncode == 143, said
    assert f"{cell}: SIGTERM: kept epoch " in said and f"To go on: {' '.join(command)}" in said
    assert "cell 1 of " in said and "Traceback" not in said and "You can resume" not in said, said
    scratch = folder / "data/06_models" / cell.replace(".", "/") / "scratch"
    assert (scratch / "resume.pt").exists()
    done = copied_project.call(folder, "kedro", "run", "--pipeline=digits_glt", "--tags=train", f"--namespaces={cell}")
    assert done.returncode == 0 and f"{cell}: ce on cpu, resuming after epoch " in done.stderr, done.stderr
    assert (scratch.parent / "checkpoint.safetensors").exists() and not list(scratch.iterdir())
