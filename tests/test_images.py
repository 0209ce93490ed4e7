"""Batches from packed images: boxes, resizing, windows, centres, and splits that are read from their file."""

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from ltpipe.config.spec import Refused
from ltpipe.interface.phases import Augment
from ltpipe.models.model import Model
from ltpipe.models.pixels import centre_crop, channel_scale, normalise
from ltpipe.models.servable import Servable
from ltpipe.recipe.run import Run, build_network
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import images, loop
from ltpipe.training.augment import random_boxes
from ltpipe.training.augment.batch import augment_batch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pictures():
    """Noisy and smooth 24 x 24 images."""
    random = np.random.RandomState(0)
    noise = random.randint(0, 256, (6, 24, 24, 3))
    ramp = np.broadcast_to(np.arange(24)[:, None, None] * 10, (6, 24, 24, 3))
    return torch.from_numpy(np.concatenate([noise, ramp]).astype(np.uint8))


@pytest.mark.parametrize("size", [7, 16, 24, 40])
def test_a_box_is_resized_as_pillow_does(pictures, size):
    boxes = random_boxes.draw_boxes(len(pictures), 24, (0.1, 1.0), generator(3))
    resized = random_boxes.resize_boxes(pictures, boxes, size)
    for picture, (top, left, height, width), mine in zip(pictures, boxes.tolist(), resized, strict=True):
        cut = Image.fromarray(picture.numpy()).crop((left, top, left + width, top + height))
        theirs = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(theirs - mine.numpy()).max() <= 1


def test_a_whole_box_of_the_same_size_changes_nothing(pictures):
    whole = torch.tensor([[0, 0, 24, 24]]).expand(len(pictures), 4)
    assert torch.equal(random_boxes.resize_boxes(pictures, whole, 24), pictures)


def test_boxes_have_the_requested_area_and_ratio_and_lie_inside():
    top, left, height, width = random_boxes.draw_boxes(20000, 256, (0.08, 1.0), generator()).T
    assert top.min() >= 0 and left.min() >= 0
    assert (top + height).max() <= 256 and (left + width).max() <= 256
    whole = (height == 256) & (width == 256)
    ratio, share = (width / height)[~whole], (height * width / 256**2)[~whole]
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    assert share.min() > 0.078 and share.max() <= 1.0
    # Half of the boxes are wider than high, and the corners are uniformly distributed.
    assert abs((ratio > 1).float().mean() - 0.5) < 0.02
    free = (256 - height) > 50
    assert abs((top / (256 - height))[free].mean() - 0.5) < 0.02


def test_boxes_are_distributed_as_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms")
    picture = torch.zeros(3, 64, 64)
    torch.manual_seed(0)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(picture, (0.3, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
    )
    mine = random_boxes.draw_boxes(4000, 64, (0.3, 1.0), generator())
    for column in range(4):
        a, b = theirs[:, column].float(), mine[:, column].float()
        assert abs(a.mean() - b.mean()) < 5 * (a.std() + b.std()) / 4000**0.5
        assert abs(a.std() - b.std()) < 0.05 * a.std()


def test_a_box_that_never_fits_is_the_whole_image():
    assert random_boxes.draw_boxes(3, 1, (0.01, 0.02), generator()).tolist() == [[0, 0, 1, 1]] * 3


def test_random_boxes_have_the_networks_size(pictures):
    batch = augment_batch(pictures, Augment(resized_crop=(0.2, 1.0), flip=True), generator(1), 16)
    assert batch.shape == (12, 16, 16, 3) and batch.dtype == torch.uint8
    assert torch.equal(batch, augment_batch(pictures, Augment(resized_crop=(0.2, 1.0), flip=True), generator(1), 16))


def test_a_window_of_a_larger_image_reaches_every_place(pictures):
    numbered = torch.arange(24 * 24).reshape(24, 24).remainder(251).to(torch.uint8)[None, :, :, None]
    batch = numbered.expand(400, 24, 24, 3)
    windows = augment_batch(batch, Augment(crop=1), generator(), 22)
    places = {
        (top, left)
        for image in windows
        for top in range(-1, 4)
        for left in range(-1, 4)
        if torch.equal(
            image, torch.nn.functional.pad(batch[0], (0, 0, 1, 1, 1, 1))[top + 1 : top + 23, left + 1 : left + 23]
        )
    }
    assert places == {(top, left) for top in range(-1, 4) for left in range(-1, 4)}


def test_without_a_crop_a_larger_image_gives_its_centre(pictures):
    assert torch.equal(augment_batch(pictures, Augment(), generator(), 20), pictures[:, 2:22, 2:22])
    assert torch.equal(centre_crop(pictures, 21), pictures[:, 1:22, 1:22])
    model = Model(backbone="cnn", image=20)
    scales = channel_scale(model.mean), channel_scale(model.std)
    assert torch.equal(normalise(pictures, 20, *scales), normalise(pictures[:, 2:22, 2:22], 20, *scales))


def test_the_served_graph_takes_the_centre_of_packed_images(pictures):
    model = Model(backbone="cnn", image=20, options={"width": 4})
    network, method = build_network(Run(method="ce", split="train"), model, tiny.PROBLEM)
    serve = Servable(network, method.predict, model).eval()
    with torch.no_grad():
        assert torch.equal(serve(pictures)[0], serve(pictures[:, 2:22, 2:22])[0])


@pytest.mark.parametrize(
    "changes", [{"crop": 4, "resized_crop": (0.1, 1)}, {"resized_crop": (0.9, 0.1)}, {"resized_crop": (0, 1)}]
)
def test_impossible_crops_are_refused(changes):
    with pytest.raises(ValueError, match="resized_crop"):
        Augment(**changes)


def stored(split, held):
    """Return the same split, but in a store that also has other images; its pixels on the device if `held`."""
    pixels = split.pixels.numpy()
    store = np.zeros((3 * len(pixels), *pixels.shape[1:]), np.uint8)
    rows = 3 * np.arange(len(pixels))[::-1] + 1
    store[rows] = pixels
    labels, groups = split.labels.numpy(), split.groups.numpy()
    return images.SplitImages.of(store, rows, labels, groups, tiny.CPU, resident=1e9 if held else 0)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_images_read_from_their_file_give_the_same_training(name, tmp_path):
    from dataclasses import replace

    task = tiny.task(tmp_path, name, tiny.example(name))
    results = []
    for held in (True, False):
        train, val = stored(tiny.TRAIN, held), stored(tiny.VAL, held)
        assert (train.pixels is not None) == held
        results.append(loop.fit(replace(task, train=train, val=val, resume=tmp_path / f"{held}.pt")))
    assert tiny.same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_stored_steps_are_read_in_order_from_any_start():
    train = stored(tiny.TRAIN, held=False)
    assert images.PREFETCH > 0
    steps = [[torch.tensor([i, i + 1]), torch.tensor([i])] for i in range(9)]
    for start in (0, 1, 7, 9):
        read = list(train.prefetch(steps, start))
        assert [step for step, _, _ in read] == list(range(start, 9))
        for step, rows, pixels in read:
            assert all(torch.equal(a, b) for a, b in zip(rows, steps[step], strict=True))
            assert all(torch.equal(p, tiny.TRAIN.pixels[r]) for p, r in zip(pixels, rows, strict=True))


def test_a_runs_own_recipe():
    whole = Schedule(epochs=3, batch=8, lr=0.1, weight_decay=0.0, augment={"crop": 2, "flip": True})
    changed = whole.with_changes({"weight_decay": 2e-4, "decay": {60: 0.1}, "augment": {"crop": 0, "cutout": 4}})
    assert (changed.weight_decay, changed.decay, changed.epochs) == (2e-4, {60: 0.1}, 3)
    assert changed.augment == Augment(flip=True, cutout=4)
    assert changed.with_changes({"weight_decay": 2e-4}) == changed
    assert whole.with_changes({}) == whole
    with pytest.raises(Refused, match=r"unknown key wd; valid keys: epochs, batch"):
        whole.with_changes({"wd": 1})
    for augment in (None, [1], 3):
        with pytest.raises(Refused, match="augment"):
            whole.with_changes({"augment": augment})


@pytest.mark.parametrize(
    ("method", "options", "start", "schedule", "unused"),
    [
        ("ce", {}, None, {"epochs": 9, "lr": 0.2, "weight_decay": 0.1}, []),
        ("ce", {}, None, {"epochs": 3, "lr": 0.1}, []),
        ("ride", {}, None, {"decay": {1: 0.1}, "batch": 4}, []),
        ("crt", {}, "ce", {"epochs": 9, "lr": 0.2, "augment": {"crop": 1}}, ["epochs", "lr"]),
        ("logit_adjust", {"form": "post_hoc"}, "ce", {"weight_decay": 0.1}, ["weight_decay"]),
        ("tau_norm", {}, "ce", {"batch": 4}, ["batch"]),
        ("tau_norm", {}, "ce", {"accumulate": 2}, ["accumulate"]),
        ("crt", {}, "ce", {"layer_decay": 0.5}, ["layer_decay"]),
        ("lws", {}, "ce", {"parts": {"head": {"lr_scale": 2.0}, "own": {"lr_scale": 2.0}}}, ["parts.head"]),
        ("ce", {}, None, {"layer_decay": 0.5, "weight_decay": 0.1}, []),
    ],
)
def test_unused_keys_of_a_runs_recipe_are_named(method, options, start, schedule, unused):
    run = Run(method=method, options=options, split="train", start_from=start, schedule=schedule)
    assert Schedule(epochs=3, batch=8, lr=0.1, weight_decay=0.0).unused_keys(run, 4) == unused


def packed(count=40, size=12):
    """Return a manifest of two classes, half of it val, and its images."""
    import pandas as pd

    roles = np.where(np.arange(count) % 2, "val", "train")
    table = {"id": [f"{r}/{i}" for i, r in enumerate(roles)], "row": np.arange(count), "role": roles, "split": roles}
    table |= {"label": np.arange(count) // 2 % 2, "class_name": np.where(np.arange(count) // 2 % 2, "b", "a")}
    table |= {"source": "", "image": "", "file": "", "group": "many", "attribute": -1}
    pixels = np.random.RandomState(0).randint(0, 256, (count, size, size, 3)).astype(np.uint8)
    return pd.DataFrame(table), pixels


def trained(folder, run, schedule, model, manifest, pixels):
    from ltpipe.storage.weights import unpack_weights
    from ltpipe.training.scratch import discard
    from ltpipe.training.train import train

    checkpoint, _, _ = train(manifest, pixels, folder, run, schedule, model, 0, cell="x.ce.s0")
    discard(folder)
    return unpack_weights(checkpoint)


def test_a_runs_own_recipe_is_trained_and_recorded(tmp_path):
    schedule = Schedule(epochs=1, batch=8, lr=0.1, weight_decay=0.0, augment={"resized_crop": (0.5, 1)})
    model = Model(backbone="cnn", image=8, options={"width": 4})
    changed = Run(method="ce", split="train", schedule={"epochs": 2, "weight_decay": 0.1})
    weights, facts = trained(tmp_path, changed, schedule, model, *packed())
    assert facts["parameters"]["schedule"]["epochs"] == 2
    assert not {"resident", "save_every", "save_minutes"} & set(facts["parameters"]["schedule"])
    whole = schedule.with_changes({"epochs": 2, "weight_decay": 0.1, "resident": 0})
    assert tiny.same(weights, trained(tmp_path, Run(method="ce", split="train"), whole, model, *packed())[0])
    assert not tiny.same(weights, trained(tmp_path, Run(method="ce", split="train"), schedule, model, *packed())[0])


@pytest.mark.parametrize(("room", "held"), [(1.0, (False, False)), (1.5, (True, False)), (2.0, (True, True))])
def test_the_validation_split_is_held_only_beside_the_training_split(room, held, tmp_path, monkeypatch):
    """Room in units of either split: each has 20 images."""
    manifest, pixels = packed()
    pixels = pixels[:, :8, :8]
    resident = room * 20 * pixels[0].nbytes / 1e9 * (1 + 1e-9) - (1e-9 if room == 1.0 else 0)
    seen = []
    monkeypatch.setattr(loop, "fit", lambda task: seen.append(task) or ({}, [], {}, {}))
    schedule = Schedule(epochs=1, batch=8, lr=0.1, weight_decay=0.0, resident=resident)
    model = Model(backbone="cnn", image=8, options={"width": 4})
    trained(tmp_path, Run(method="ce", split="train"), schedule, model, manifest, pixels)
    assert tuple(split.pixels is not None for split in (seen[0].train, seen[0].val)) == held


def test_images_smaller_than_the_network_are_refused(tmp_path):
    schedule = Schedule(epochs=1, batch=8, lr=0.1, weight_decay=0.0, augment={"resized_crop": (0.5, 1)})
    with pytest.raises(Refused, match=r"size 12, smaller than model\.image 16"):
        trained(tmp_path, Run(method="ce", split="train"), schedule, Model(backbone="cnn", image=16), *packed())
    with pytest.raises(ValueError, match="smaller"):
        centre_crop(torch.zeros(2, 12, 12, 3), 16)


def test_larger_packed_images_are_exported_and_predicted(tmp_path):
    from ltpipe.serving.export import Parity, export
    from ltpipe.serving.preprocessing import Preprocessing
    from ltpipe.serving.session import open_session, predict, read_facts
    from ltpipe.training.train import train

    manifest, pixels = packed()
    schedule = Schedule(epochs=1, batch=8, lr=0.1, weight_decay=0.0, augment={"resized_crop": (0.5, 1)})
    run, model = Run(method="ce", split="train"), Model(backbone="cnn", image=8, options={"width": 4})
    recipe = {"run": run, "schedule": schedule, "model": model, "seed": 0, "cell": "x.ce.s0"}
    checkpoint, _, _ = train(manifest, pixels, tmp_path, **recipe)
    payload, report = export(checkpoint, manifest, pixels, **recipe, parity=Parity())
    facts = read_facts(open_session(payload))
    assert report["agrees"] and facts["image_size"] == 12
    assert facts["preprocessing"] == Preprocessing(size=12, network=8, jpeg="shrunk").model_dump()
    table = predict(payload, manifest, pixels, **recipe, parity=Parity(), checkpoint=checkpoint)
    assert len(table) == 20 and table["confidence"].between(0.5, 1).all()
