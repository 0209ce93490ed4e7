"""The training loop: determinism, resuming after the process is killed, unusable resume points, errors."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ltpipe.config.spec import Refused
from ltpipe.models.model import Model
from ltpipe.recipe.run import Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.serving.export import Parity, export
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.weights import unpack_weights
from ltpipe.training import cost, loop
from ltpipe.training.checkpoint import save_resume
from ltpipe.training.scratch import FINISHED, discard
from ltpipe.training.train import train

ROOT = Path(__file__).parents[1]
MODEL = Model(backbone="cnn", image=16, options={"width": 4})
SCHEDULE = Schedule(epochs=2, batch=16, lr=0.05, weight_decay=1e-4, augment={"crop": 1}, save_every=3)
RUN = Run(method="ce", split="train")


def problem(images: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a manifest of 4 unbalanced classes and random 16 x 16 images."""
    random = np.random.RandomState(0)
    labels = np.sort(random.choice(4, images, p=[0.4, 0.3, 0.2, 0.1]))
    split = np.where(np.arange(images) % 3 == 0, "val", "train")
    manifest = pd.DataFrame(
        {
            "id": [f"{s}/{i}" for i, s in enumerate(split)],
            "image": [str(i) for i in range(images)],
            "source": [str(i) for i in range(images)],
            "file": [str(i) for i in range(images)],
            "row": np.arange(images),
            "label": labels,
            "class_name": [f"c{y}" for y in labels],
            "role": split,
            "split": split,
            "group": np.array(["many", "medium", "medium", "few"])[labels],
            "attribute": -1,
        }
    )
    return manifest, random.randint(0, 256, (images, 16, 16, 3)).astype(np.uint8)


def run(tmp_path: Path, **changes: object) -> bytes:
    arguments = {"run": RUN, "schedule": SCHEDULE, "model": MODEL, "seed": 0, "cell": "toy.ce.s0"} | changes
    manifest, images = problem()
    checkpoint = train(manifest, images, tmp_path, **arguments)[0]
    discard(tmp_path)
    return checkpoint


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(tmp_path):
    first = run(tmp_path)
    assert run(tmp_path) == first
    assert run(tmp_path, seed=1) != first


def test_seed_zero_is_a_seed_like_any_other(tmp_path):
    torch.manual_seed(123)
    first = run(tmp_path, seed=0)
    torch.manual_seed(456)
    assert run(tmp_path, seed=0) == first


def test_cells_of_one_process_have_the_bytes_of_cells_alone(tmp_path):
    """In both orders, with an export in between: neither weights nor ONNX files know what the process did before."""
    alone = {"ce": SCHEDULE, "logit_adjust": SCHEDULE.model_copy(update={"threads": 2})}

    def cell(name: str) -> tuple[bytes, bytes]:
        manifest, images = problem()
        row = Run(method=name, split="train")
        recipe = {"run": row, "schedule": alone[name], "model": MODEL, "seed": 0, "cell": f"toy.{name}.s0"}
        checkpoint = train(manifest, images, tmp_path, **recipe)[0]
        return checkpoint, export(checkpoint, manifest, images, **recipe, parity=Parity())[0]

    threads = torch.get_num_threads()
    first = {name: cell(name) for name in ("ce", "logit_adjust")}
    assert {name: cell(name) for name in ("logit_adjust", "ce")} == first
    assert torch.get_num_threads() == threads, "a cell left its number of threads to the next one"


def test_the_log_has_a_row_for_each_epoch_with_all_groups(tmp_path):
    manifest, images = problem()
    _, log, _ = train(manifest, images, tmp_path, RUN, SCHEDULE, MODEL, 0, cell="toy.ce.s0")
    assert list(log["epoch"]) == [1, 2]
    assert {"loss", "train_accuracy", "val_accuracy", "val_macro_recall", "val_many", "val_medium", "val_few"} <= set(
        log.columns
    )


def test_an_empty_group_is_absent_from_the_log(tmp_path):
    manifest, images = problem()
    manifest["group"] = "many"
    _, log, _ = train(manifest, images, tmp_path, RUN, SCHEDULE, MODEL, 0, cell="toy.ce.s0")
    assert "val_many" in log and "val_few" not in log


def test_a_finished_run_leaves_no_resume_point(tmp_path):
    run(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Stop(Exception):
    """Interrupts training."""


@pytest.mark.parametrize("after", range(1, 7))  # two epochs of three steps
def test_resuming_after_any_step_equals_an_uninterrupted_run(tmp_path, monkeypatch, after):
    schedule = SCHEDULE.model_copy(update={"save_every": 1})
    uninterrupted = run(tmp_path, schedule=schedule)
    saves = 0

    def save_and_stop(path, state):
        nonlocal saves
        save_resume(path, state)
        saves += 1
        if saves == after:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop.checkpoint, "save_resume", save_and_stop)
        run(tmp_path, schedule=schedule)
    assert (tmp_path / "resume.pt").exists()
    assert run(tmp_path, schedule=schedule) == uninterrupted


def interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the default run, and interrupt it after its first resume point."""

    def save_and_stop(path, state):
        save_resume(path, state)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoint, "save_resume", save_and_stop)
        with pytest.raises(Stop):
            run(tmp_path)


def test_a_resume_point_of_the_same_run_is_used(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "ltpipe.training")
    interrupt(tmp_path, monkeypatch)
    run(tmp_path)
    assert "resuming" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": SCHEDULE.model_copy(update={"lr": 0.01})},
        {"seed": 1},
        {"model": Model(backbone="cnn", image=16, options={"width": 4}, mean=(0.4, 0.5, 0.5))},
        {"run": Run(method="logit_adjust", split="train")},
    ],
    ids=["schedule", "seed", "model", "method"],
)
def test_a_resume_point_of_other_parameters_is_never_used(tmp_path, monkeypatch, caplog, changes):
    caplog.set_level("INFO", "ltpipe.training")
    clean = run(tmp_path / "clean", **changes)
    interrupt(tmp_path / "dirty", monkeypatch)
    caplog.clear()
    assert run(tmp_path / "dirty", **changes) == clean
    assert "other code, data or parameters, starting over" in caplog.text


def test_a_resume_point_of_other_code_is_never_used(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "ltpipe.training")
    interrupt(tmp_path, monkeypatch)
    monkeypatch.setattr("ltpipe.recipe.cell.code_version", lambda modules: "another")
    run(tmp_path)
    assert "starting over" in caplog.text


def test_a_checkpoint_holds_its_provenance(tmp_path):
    facts = unpack_weights(run(tmp_path))[1]
    assert facts["cell"] == "toy.ce.s0" and facts["seed"] == 0
    assert facts["classes"] == ["c0", "c1", "c2", "c3"] and sum(facts["classes_counts"]) == 40
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]{8}", facts["data"]) and re.fullmatch("[0-9a-f]{12}", facts["code"])
    assert facts["parameters"]["schedule"]["lr"] == 0.05


def test_a_run_that_starts_from_another_keeps_its_weights(tmp_path):
    first = run(tmp_path)
    post_hoc = Run(method="logit_adjust", split="train", options={"form": "post_hoc"}, start_from="ce")
    weights, facts = unpack_weights(run(tmp_path, run=post_hoc, start=first))
    for name, tensor in unpack_weights(first)[0].items():
        assert torch.equal(weights[name], tensor)
    assert facts["started_from"] is not None
    assert "own.log_prior" in weights


@pytest.mark.parametrize(
    ("begun", "change", "difference"),
    [
        ({"cell": "toy.ce.s1"}, {}, "cell is toy.ce.s1, not toy.ce.s0"),
        ({"cell": "toy.focal.s0"}, {}, "cell is toy.focal.s0, not toy.ce.s0"),
        ({"seed": 1}, {}, "seed is 1, not 0"),
        ({}, {"images": 63}, "data is "),
    ],
)
def test_a_start_of_another_cell_seed_or_data_is_refused(tmp_path, begun, change, difference):
    post_hoc = Run(method="logit_adjust", split="train", options={"form": "post_hoc"}, start_from="ce")
    first, (manifest, images) = run(tmp_path, **begun), problem(**change)
    with pytest.raises(Refused, match=f"the checkpoint of toy.ce.s0 is of another state: {difference}"):
        train(manifest, images, tmp_path, post_hoc, SCHEDULE, MODEL, 0, first, cell="toy.la.s0")


def test_an_unknown_split_is_refused_with_the_valid_ones(tmp_path):
    with pytest.raises(Refused, match=r"no image in split 'nope'; it has: train, val"):
        run(tmp_path, run=Run(method="ce", split="nope"))


def test_a_diverging_loss_stops_training_and_is_named(tmp_path):
    with pytest.raises(
        loop.Diverged, match=r"toy\.ce\.s0: loss is (nan|inf) in epoch 1 of 5, step [23] of 3; lower lr.*"
    ):
        run(tmp_path, schedule=SCHEDULE.model_copy(update={"lr": 1e30, "epochs": 5}))


def test_bf16_trains_to_finite_weights(tmp_path):
    weights, _ = unpack_weights(run(tmp_path, schedule=SCHEDULE.model_copy(update={"precision": "bf16"})))
    assert all(torch.isfinite(t).all() for t in weights.values() if t.is_floating_point())


@pytest.fixture
def prepared(tmp_path) -> Path:
    """Return a folder for ltpipe train, with a benchmark file of a longer run."""
    manifest, images = problem(400)
    manifest.to_parquet(tmp_path / "manifest.parquet")
    np.save(tmp_path / "images.npy", images)
    schedule = {"epochs": 30, "batch": 16, "lr": 0.05, "weight_decay": 1.0e-4, "save_every": 10}
    groups = {"by": "rank", "many": 1, "medium": 2}
    toy = {
        "source": {"name": "digits", "size": 16},
        "split": {"kind": "stratified", "options": {"groups": groups}},
        "expect": {"classes": 4, "groups": groups | {"split": "train"}},
        "model": {"backbone": "cnn", "image": 16, "options": {"width": 4}},
        "schedule": schedule,
        "evaluate": {"protocols": {"lt": {"train": "train", "test": "test"}}},
        "seeds": {"s0": 0},
        "reported": {"why": "a test"},
        "runs": {"ce": {"train": {"method": "ce"}}},
        "gate": {"primary": "lt.accuracy.all", "against": "nothing"},
    }
    toy["expect"]["class_counts"] = {split: {"classes": 4} for split in ("train", "val", "test")}
    (tmp_path / "toy.yml").write_text(yaml.safe_dump({"toy": toy}))
    return tmp_path


# blocks of stages that the command does not run; each of these changes used to be taken and ignored
NO_EFFECT = [
    "evaluate.protocols.lt.test=test_b",
    "split.options.seed=5",
    "source.options.seed=5",
    "cluster=null",
    "parity.images=9",
    "claims=[]",
]
NO_EFFECT += ["gate.against=nothing", "reported.why=x", "runs.ce.reported.why=x"]


def command(prepared: Path, out: str) -> list[str]:
    where = ["--benchmark", str(prepared / "toy.yml"), "--out", str(prepared / out), "--device", "cpu"]
    return [sys.executable, "-m", "ltpipe.training", str(prepared), *where]


def test_a_killed_process_resumes_to_the_same_bytes(prepared):
    subprocess.run(command(prepared, "whole"), check=True, capture_output=True)
    process = subprocess.Popen(command(prepared, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    resume = prepared / "killed/ce/s0/resume.pt"
    deadline = time.monotonic() + 120
    while not resume.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert resume.exists()
    again = subprocess.run(command(prepared, "killed"), check=True, capture_output=True, text=True)
    assert "resuming" in again.stderr
    for name in ("checkpoint.safetensors", "log.csv", "predictions.csv"):
        assert (prepared / "killed/ce/s0" / name).read_bytes() == (prepared / "whole/ce/s0" / name).read_bytes()
    kept = subprocess.run(command(prepared, "killed"), check=True, capture_output=True, text=True)
    assert "kept" in kept.stdout


def test_a_record_keeps_the_numbers_and_what_made_them(prepared):
    from click.testing import CliRunner

    from ltpipe.evaluation.record import read_records, same_recipe
    from ltpipe.train import command as main
    from ltpipe.train import load_benchmark

    changes = ("schedule.epochs=1", "schedule.threads=1")
    arguments = [*command(prepared, "out")[3:], *(word for change in changes for word in ("--set", change))]
    records = prepared / "records"
    lacking = CliRunner().invoke(main, [*arguments, "--record", str(records)])
    assert lacking.exit_code == 2 and "no image of split test" in lacking.output
    assert not records.exists() and not (prepared / "out").exists()
    manifest = pd.read_parquet(prepared / "manifest.parquet")
    tested = np.arange(len(manifest)) % 6 == 0
    manifest.assign(**{k: manifest[k].where(~tested, "test") for k in ("split", "role")}).to_parquet(
        prepared / "manifest.parquet"
    )
    for again in (False, True):  # the second time the cell is kept, and its record is written all the same
        result = CliRunner().invoke(main, [*arguments, "--record", str(records)])
        assert result.exit_code == 0 and ("kept" in result.output) == again, result.output
        (record,) = read_records(records)["toy"]
        (records / "toy/ce/s0.json").unlink()
    assert record.command.startswith("ltpipe train data/05_model_input/toy --benchmark conf/base/parameters/toy.yml")
    assert record.command.endswith("--run ce --seed s0 --out results --set schedule.epochs=1 --set schedule.threads=1")
    assert record.device.endswith(", 1 thread") and record.seconds > 0
    predictions = pd.read_csv(prepared / "out/ce/s0/predictions.csv")
    rows = predictions[predictions["split"] == "test"]
    assert record.metrics["lt"]["accuracy"]["all"] == 100 * (rows["label"] == rows["predicted"]).mean()
    spec = load_benchmark(prepared / "toy.yml", changes)
    assert same_recipe(record, spec.runs["ce"].train, spec.schedule, spec.model)
    for other in ("schedule.epochs=2", "schedule.weight_decay=0.1", "model.options.width=8"):
        spec = load_benchmark(prepared / "toy.yml", (*changes, other))
        assert not same_recipe(record, spec.runs["ce"].train, spec.schedule, spec.model)


def test_a_record_of_before_a_new_key_is_still_of_this_recipe(prepared):
    from ltpipe.evaluation.record import Record, same_recipe, whole_recipe
    from ltpipe.train import load_benchmark

    spec = load_benchmark(prepared / "toy.yml", ())
    kept = whole_recipe(spec.runs["ce"].train, spec.schedule, spec.model)
    del kept["schedule"]["nesterov"]
    record = Record(
        cell="toy.ce.s0", seed=0, code="c", recipe="r", data="d", parameters=kept, command="x", device="y", versions={},
        seconds=1, finished="2026-01-01", metrics={}, protocols=spec.evaluate.protocols,
    )  # fmt: skip
    assert same_recipe(record, spec.runs["ce"].train, spec.schedule, spec.model)


def test_training_runs_without_kedro_dvc_and_great_expectations(prepared):
    blocked = "import sys\nfor name in ('kedro', 'dvc', 'great_expectations'): sys.modules[name] = None\n"
    main = "from ltpipe.train import command\ncommand()\n"
    arguments = [*command(prepared, "alone")[3:], "--set", "schedule.epochs=1"]
    done = subprocess.run([sys.executable, "-c", blocked + main, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (prepared / "alone/ce/s0/checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nope"], "no run nope"),
        (["--seed", "s9"], "no seed s9"),
        (["--set", "shedule.epochs=1"], "unknown key shedule; valid keys: source, "),
        (["--set", "schedule.epochs"], "write it as key=value"),
        (["--set", "seeds.s0.x=1"], "seeds.s0 is no block"),
        (["--set", "nope"], "write it as key=value"),
        (["--set", "nope=1"], "unknown key nope; valid keys: source, "),
        (["--set", "epochs=2"], "did you mean schedule.epochs?"),
        (["--set", "toy.schedule.epochs=2"], "did you mean schedule.epochs?"),
        (["--set", "schedule.epoch=1"], "unknown key epoch; valid keys: epochs, batch"),
        (["--set", "schedule.epoch=1"], "did you mean schedule.epochs?"),
        (["--set", "schedule.nope=1"], "unknown key nope; valid keys: epochs, batch"),
        (["--set", "schedule.epochs=["], "[ is not YAML"),
        (["--set", "runs.ce.train.methd=x"], "unknown key methd; valid keys: options, method"),
        (["--set", "runs.ce.train.methd=x"], "did you mean runs.ce.train.method?"),
        *((["--set", change], "has no effect here, where prepared data are trained on") for change in NO_EFFECT),
    ],
)
def test_wrong_arguments_of_the_command_are_refused_with_the_valid_ones(prepared, arguments, message):
    from click.testing import CliRunner

    from ltpipe.train import command as main

    result = CliRunner().invoke(main, [*command(prepared, "x")[3:], *arguments])
    assert result.exit_code == 2 and message in result.output
    assert not (prepared / "x").exists()


def test_a_hint_is_given_only_where_one_key_is_meant(prepared):
    from ltpipe.config.spec import Refused
    from ltpipe.train import load_benchmark

    for change in ("nope=1", "schedule.nope=1", "train=1"):  # several runs and protocols have a key train
        with pytest.raises(Refused) as refused:
            load_benchmark(prepared / "toy.yml", (change,))
        assert "did you mean" not in refused.value.message


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bytes_twice_and_the_cpu_s_predictions(tmp_path):
    assert torch.cuda.is_available(), "gpu tests were requested, but there is no CUDA device"
    first = run(tmp_path, device="cuda")
    assert run(tmp_path, device="cuda") == first
    on_cpu, on_gpu = unpack_weights(run(tmp_path, device="cpu"))[0], unpack_weights(first)[0]
    for name, tensor in on_cpu.items():
        assert torch.allclose(tensor.float(), on_gpu[name].float(), atol=1e-2), name


def test_a_run_does_not_depend_on_the_cublas_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    first = run(tmp_path)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert run(tmp_path) == first


def test_a_benchmark_that_is_like_another_trains_by_itself(root):
    from ltpipe.train import load_benchmark

    spec = load_benchmark(root / "conf/base/parameters/digits_glt_all.yml", ("schedule.epochs=1",))
    assert spec.schedule.epochs == 1 and spec.seeds == {"s0": 0, "s1": 1, "s2": 2}
    assert spec.model.backbone == "cnn"


def finished_cell(tmp_path: Path) -> tuple[pd.DataFrame, np.ndarray, bytes, pd.DataFrame]:
    manifest, images = problem()
    checkpoint, log, _ = train(manifest, images, tmp_path, RUN, SCHEDULE, MODEL, 0, cell="toy.ce.s0")
    discard(tmp_path)
    return manifest, images, checkpoint, log


def test_a_finished_cell_is_kept_if_nothing_has_changed(tmp_path, monkeypatch):
    manifest, images, first, log = finished_cell(tmp_path)
    monkeypatch.setattr(loop, "fit", None)  # nothing may be trained
    again = train(manifest, images, tmp_path, RUN, SCHEDULE, MODEL, 0, None, None, first, log, cell="toy.ce.s0")
    assert again[0] == first and again[1] is log and again[2] == {}, "a cost that was not kept is not known"
    spent = {"seconds": 3.0}
    again = train(manifest, images, tmp_path, RUN, SCHEDULE, MODEL, 0, None, None, first, log, spent, cell="toy.ce.s0")
    assert again[2] == spent


def test_the_cost_is_of_its_checkpoint_and_changes_neither_it_nor_the_log(tmp_path, monkeypatch):
    manifest, images = problem()
    first = train(manifest, images, tmp_path / "a", RUN, SCHEDULE, MODEL, 0, cell="toy.ce.s0")
    monkeypatch.setattr(cost, "device_name", lambda device: "another machine")
    second = train(manifest, images, tmp_path / "b", RUN, SCHEDULE, MODEL, 0, cell="toy.ce.s0")
    assert first[0] == second[0] and first[1].equals(second[1])
    assert first[2]["device"] != second[2]["device"] == "another machine"
    assert first[2]["checkpoint"] == second[2]["checkpoint"] == digest_bytes(first[0])
    assert first[2]["precision"] == SCHEDULE.precision


@pytest.mark.parametrize("change", ["seed", "schedule", "image", "weights", "cut", "log", "no log"])
def test_a_finished_cell_is_trained_again_if_anything_has_changed(tmp_path, change):
    manifest, images, first, log = finished_cell(tmp_path)
    images[0] ^= change == "image"
    kept = {"weights": first[:-1] + bytes([first[-1] ^ 1]), "cut": first[:-10]}.get(change, first)
    old_log = {"log": log.assign(recipe="0123456789ab"), "no log": None}.get(change, log)
    schedule, seed = SCHEDULE.model_copy(update={"lr": 0.01} if change == "schedule" else {}), int(change == "seed")
    train(manifest, images, tmp_path, RUN, schedule, MODEL, seed, None, None, kept, old_log, cell="toy.ce.s0")
    assert (tmp_path / FINISHED).exists(), "nothing was trained"


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "headless"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    whole = run(tmp_path)
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    content = {"flipped": flipped, "cut": whole[:-10], "empty": b"", "headless": whole[50:]}[damage]
    with pytest.raises(Refused, match=r"the checkpoint is damaged \(.*\): train its cell again$"):
        unpack_weights(content)
