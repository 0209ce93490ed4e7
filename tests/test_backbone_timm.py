"""backbone: timm: any network of timm as features, its weights from a file or from the hub, and what is refused."""

import logging
import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import tiny
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from ltpipe.backbones import timm as backbone
from ltpipe.config.spec import Refused, parse
from ltpipe.models.model import Model
from ltpipe.recipe.cell import identity, recipe
from ltpipe.recipe.run import Run, build_network, rebuild, untrained
from ltpipe.serving import export
from ltpipe.training import determinism, loop, optimiser

# a residual network, a ConvNeXt, a ViT and an EfficientNet, of 0.1 to 0.4 M parameters, and a size for each
FAMILIES = {"test_resnet": 64, "test_convnext": 64, "test_vit": 64, "test_efficientnet": 64}
RESNET = {"name": "test_resnet"}


def model(name, image=64, **options):
    return Model(backbone="timm", image=image, mean=(0.5,) * 3, std=(0.25,) * 3, options={"name": name, **options})


def pictures(count, size):
    """Drawn pictures, uint8: gradients with a disc and a bar, since noise would hide what a network does to shapes."""
    random, drawn = np.random.RandomState(0), []
    for _ in range(count):
        colours = random.randint(0, 255, (4, 3))
        ramp = np.linspace(0, 1, size)[:, None, None]
        gradient = ramp * colours[0] + (1 - ramp) * colours[1] + np.zeros((1, size, 1))
        picture = Image.fromarray(gradient.astype(np.uint8))
        canvas, (x, y) = ImageDraw.Draw(picture), random.randint(0, size // 2, 2)
        canvas.ellipse((x, y, x + size // 3, y + size // 3), fill=tuple(map(int, colours[2])))
        canvas.rectangle((y, x, y + size // 8, size), fill=tuple(map(int, colours[3])))
        drawn.append(np.asarray(picture))
    return np.stack(drawn)


# networks


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_gives_features_of_the_size_that_it_states(name):
    size = FAMILIES[name]
    network = backbone.build(backbone.Config(name=name), 1, image=size).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, size, size)).shape == (2, network.features)


@pytest.mark.parametrize("name", FAMILIES)
def test_exported_networks_answer_like_torch(name):
    """With weights that are no longer the initial ones: a classifier of zeros would agree with anything."""
    size, run = FAMILIES[name], Run(method="ce")
    torch.manual_seed(1)
    servable = untrained(run, model(name, size), tiny.COUNTS)
    for parameter in servable.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    payload = export.to_onnx(servable, {}, export.trace(servable, size))
    report = export.compare(servable, payload, pictures(24, size), export.Parity())
    assert report["agrees"] and report["images"] == 24
    with torch.no_grad():
        logits = servable(torch.tensor(pictures(24, size)))[0]
    assert logits.std(dim=0).min() > 1e-3  # the answers differ from picture to picture


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_is_in_one_layer_from_the_image_on(name):
    """For a learning rate that falls from layer to layer towards the image."""
    network = backbone.build(backbone.Config(name=name), 2, private="all")
    layers = [[id(p) for module in layer for p in module.parameters()] for layer in network.layers()]
    found = [parameter for layer in layers for parameter in layer]
    assert len(found) == len(set(found)) and set(found) == {id(p) for p in network.parameters()}
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    stem = {"test_resnet": "conv1", "test_convnext": "stem", "test_vit": "cls_token", "test_efficientnet": "conv_stem"}
    assert names[layers[0][0]].startswith(f"branches.0.{stem[name]}") and len(layers) >= 5


def test_a_vit_is_fine_tuned_with_a_rate_that_falls_towards_the_image(tmp_path):
    of = replace(tiny.task(tmp_path, "ce"), model=model("test_vit", 32))
    schedule = of.schedule.with_changes({"optimiser": "adamw", "layer_decay": 0.5})
    network, method = build_network(of.run, of.model, tiny.PROBLEM)
    groups = optimiser.build(network, method, schedule.phase(), schedule).param_groups
    rate = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    vit = network.backbone.branches[0]
    assert rate[id(vit.cls_token)] == 0.5**7 and rate[id(vit.norm.weight)] == 0.5
    assert rate[id(network.head.weight)] == 1


def test_a_network_is_trained_and_resumed_like_any_other(tmp_path, monkeypatch):
    def task(folder):
        return replace(tiny.task(folder, "ce"), model=model("test_efficientnet", tiny.SIZE))

    whole = loop.fit(task(tmp_path / "whole"))[0]
    monkeypatch.setattr(loop.checkpoint, "save_resume", tiny.Killer(after=3))
    with pytest.raises(tiny.Killed):
        loop.fit(task(tmp_path / "cut"))
    monkeypatch.undo()
    assert tiny.same(loop.fit(task(tmp_path / "cut"))[0], whole)


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.1), timm.layers.DropPath(0.1)])
def test_micro_batches_are_refused_where_a_second_pass_would_draw_other_numbers(tmp_path, monkeypatch, layer):
    create = backbone._create

    def with_layer(*arguments):
        network = create(*arguments)
        network.drawing = layer
        return network

    of = replace(tiny.task(tmp_path, "ce"), model=model("test_resnet", tiny.SIZE))
    of = replace(of, schedule=tiny.SCHEDULE.model_copy(update={"accumulate": 2}))
    loop._initial_state(of)
    monkeypatch.setattr(backbone, "_create", with_layer)
    with pytest.raises(Refused, match=r"accumulate passes images twice, and .*drawing draws anew: state 1"):
        loop._initial_state(of)


def test_a_method_with_whole_networks_gets_copies():
    network, _ = build_network(Run(method="lff"), model("test_resnet"), tiny.PROBLEM)
    branches = network.backbone.branches
    assert len(branches) == 2 and not list(network.backbone.trunk.parameters())
    assert network.backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 2, network.backbone.features)


@pytest.mark.parametrize("method", ["ride", "tade", "bbn"])
def test_a_method_with_a_common_trunk_is_refused_by_name(method):
    with pytest.raises(Refused, match=rf"method {method} needs \d branches .* backbone timm cannot .*: cnn, resnet"):
        build_network(Run(method=method), model("test_resnet"), tiny.PROBLEM)


def test_a_benchmark_with_such_a_run_is_refused_before_anything_runs(content):
    from ltpipe.benchmark import Benchmark

    block = content["digits_glt"]
    block["model"] |= {"backbone": "timm", "options": RESNET, "mean": [0.5] * 3, "std": [0.2] * 3}
    block["runs"]["experts"] = {"train": {"method": "ride", "split": "train_glt"}}
    with pytest.raises(Refused, match=r"runs.experts.*method ride needs 3 branches"):
        parse(Benchmark, block, "x.yml")
    block["runs"]["experts"]["train"]["model"] = {"backbone": "cnn"}
    assert parse(Benchmark, block, "x.yml").runs["experts"]


def test_a_head_on_random_features_is_refused_before_anything_runs(content):
    from ltpipe.benchmark import Benchmark

    block = content["digits_glt"]
    block["runs"]["head"] = {"train": {"method": "linear_probe", "split": "train_glt"}}
    with pytest.raises(Refused, match="method linear_probe leaves the backbone as it is: name a finished run"):
        parse(Benchmark, block, "x.yml")
    block["runs"]["head"]["train"]["start_from"] = "ce"
    assert parse(Benchmark, block, "x.yml").runs["head"]


def test_pixels_that_are_scaled_otherwise_than_in_pretraining_are_named():
    options = {"name": "resnet50.tv_in1k", "weights": "timm"}
    assert Model(backbone="timm", options=options).unlike_pretraining() == []
    stated = Model(backbone="timm", image=64, mean=(0.485, 0.456, 0.406), std=(0.25,) * 3, options=options)
    assert stated.unlike_pretraining() == ["std [0.25, 0.25, 0.25], not [0.229, 0.224, 0.225]"]
    assert model("resnet50").unlike_pretraining() == []  # random weights have seen no images


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet5O", r"no network 'resnet5O'; nearest: .*\bresnet50\b"),
        ("hf-hub:timm/resnet50", "no network"),  # it would leave the registry for the network
        ("local-dir:/etc", "no network"),
        ("resnet50.nope", r"resnet50 has no weights 'nope'; there are: .*resnet50\.tv_in1k"),
        ("zzzzzz", "none of .* timm.list_models"),
    ],
)
def test_an_unknown_network_is_refused_with_the_nearest(name, said):
    with pytest.raises(Refused, match=said):
        backbone.build(backbone.Config(name=name), 1)


# images


def test_what_the_block_leaves_out_is_the_networks_own():
    own = Model.model_validate({"backbone": "timm", "options": {"name": "vit_tiny_patch16_224"}})
    assert (own.image, own.mean, own.std) == (224, (0.5,) * 3, (0.5,) * 3)
    assert Model.model_validate({"backbone": "timm", "options": RESNET}).image == 160
    stated = Model.model_validate({"backbone": "timm", "image": 96, "options": RESNET})
    assert (stated.image, stated.mean) == (96, (0.5,) * 3)
    # once parsed, a block states everything: nothing has to be imported to read it again
    assert Model.model_validate(own.model_dump()) == own


def test_a_network_that_does_not_exist_is_refused_with_the_parameters():
    with pytest.raises(Refused, match=r"b.yml, model:\n.*nearest: .*test_resnet"):
        parse(Model, {"backbone": "timm", "options": {"name": "test_resnett"}}, "b.yml, model")
    with pytest.raises(Refused, match=r"options\.name: Field required"):
        parse(Model, {"backbone": "timm", "image": 32, "options": {}}, "b.yml, model")
    with pytest.raises(Refused, match=r"options: .*pretrained_on is missing"):
        parse(Model, {"backbone": "timm", "options": RESNET | {"weights": "w.pth"}}, "b.yml, model")
    with pytest.raises(Refused, match="image: Field required"):
        parse(Model, {"backbone": "cnn"}, "b.yml, model")


# weights from a file


@pytest.fixture
def trained():
    """Weights of a network with a classifier of 10 classes, by timm's names."""
    torch.manual_seed(5)
    return timm.create_model("test_resnet", num_classes=10).state_dict()


def begun(of, path):
    """The backbone's weights as training begins."""
    task = replace(tiny.task(path.parent, "ce"), model=of, pretrained=of.find_weights()[0])
    determinism.fix(0)
    return loop._initial_state(task).network.backbone.state_dict()


@pytest.mark.parametrize("ending", ["safetensors", "pth", "inside.pth", "headless.safetensors"])
def test_training_begins_with_the_weights_of_a_file(tmp_path, trained, ending):
    path = tmp_path / f"w.{ending}"
    if ending == "headless.safetensors":
        trained = {name: value for name, value in trained.items() if not name.startswith("fc.")}
    if ending.endswith("safetensors"):
        save_file(trained, path)
    else:
        inside = {"state_dict": {f"module.{name}": value for name, value in trained.items()}, "epoch": 90}
        torch.save(inside if "inside" in ending else trained, path)
    weights = begun(model("test_resnet", weights=str(path), pretrained_on="shapes"), path)
    features = {f"branches.0.{name}": value for name, value in trained.items() if not name.startswith("fc.")}
    assert tiny.same(weights, features)


def test_a_vit_takes_weights_of_another_image_size(tmp_path):
    torch.manual_seed(5)
    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.safetensors")
    of = model("test_vit", 64, weights=str(tmp_path / "vit.safetensors"), pretrained_on="shapes")
    weights = begun(of, tmp_path / "vit.safetensors")
    source = load_file(tmp_path / "vit.safetensors")
    assert torch.equal(weights["branches.0.norm.weight"], source["norm.weight"])
    assert weights["branches.0.pos_embed"].shape[1] == source["pos_embed"].shape[1] - 100 + 16  # 160 and 64 pixels


def remove_one(state):
    del state["layer1.0.bn1.weight"]


def add_one(state):
    state["layer9.weight"] = torch.zeros(2)


def reshape_one(state):
    state["layer1.0.conv1.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(remove_one, "layer1.0.bn1.weight"), (add_one, "layer9.weight"), (reshape_one, "layer1.0.conv1.weight")],
)
@pytest.mark.parametrize("head", [True, False])
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, trained, spoil, said, head):
    spoil(trained)
    kept = {name: value for name, value in trained.items() if head or not name.startswith("fc.")}
    save_file(kept, tmp_path / "w.safetensors")
    config = backbone.Config(name="test_resnet", weights=str(tmp_path / "w.safetensors"), pretrained_on="shapes")
    with pytest.raises(Refused, match=said) as refused:
        backbone.load_weights(config, tmp_path / "w.safetensors", 1)
    assert "\n" not in refused.value.message and len(refused.value.message) < 600


class Runs:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_code(path):
    path.write_bytes(pickle.dumps({"a": Runs(path.with_name("ran"))}))


def write_numbers(path):
    torch.save({"epoch": 3}, path)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("w.safetensors", None, "no file"),
        ("w.safetensors", lambda path: path.mkdir(), "a folder"),
        ("w.safetensors", lambda path: path.write_bytes(b"nonsense"), "cannot read"),
        ("w.pth", lambda path: path.write_bytes(b"nonsense"), "code is never run"),
        ("w.pth", lambda path: path.write_bytes(b""), "code is never run"),
        ("w.pth", write_code, "code is never run"),
        ("w.pth", write_numbers, "no state dict"),
    ],
)
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path, name, write, said):
    path = tmp_path / name
    if write:
        write(path)
    config = backbone.Config(name="test_resnet", weights=str(path), pretrained_on="shapes")
    with pytest.raises(Refused, match=said) as refused:
        backbone.load_weights(config, path, 1)
    assert "\n" not in refused.value.message
    assert not (tmp_path / "ran").exists()


# identity


def test_a_checkpoint_is_of_the_content_of_its_weights(tmp_path, trained):
    path = tmp_path / "w.safetensors"
    save_file(trained, path)
    of = model("test_resnet", weights=str(path), pretrained_on="shapes")
    blocks = {"run": Run(method="ce"), "schedule": tiny.SCHEDULE, "model": of}
    first = identity("b.ce.s0", **blocks, seed=0)
    assert recipe(**blocks)["files"] == {str(path): of.find_weights()[1]["sha256"]}
    os.utime(path, (1, 1))
    assert identity("b.ce.s0", **blocks, seed=0) == first  # the same content at another time
    save_file(trained | {"conv1.0.weight": trained["conv1.0.weight"] + 1}, path)
    assert identity("b.ce.s0", **blocks, seed=0) != first
    path.unlink()
    with pytest.raises(Refused, match=r"w.safetensors, a file that the parameters name, cannot be read"):
        identity("b.ce.s0", **blocks, seed=0)


def test_the_stages_of_a_cell_depend_on_the_file_that_its_run_names(content):
    from ltpipe.benchmark import Benchmark
    from ltpipe.pages.dvc_yaml import Projection

    block = content["digits_glt"]
    block["model"] |= {"backbone": "timm", "options": RESNET, "mean": [0.5] * 3, "std": [0.2] * 3}
    own = {"options": {"weights": "w.pth", "pretrained_on": "shapes"}}
    block["runs"]["tuned"] = {"train": {"method": "ce", "split": "train_glt", "model": own}}
    projection = Projection(None, "b", parse(Benchmark, block, "x.yml"), None, None)
    assert projection.files(["b.model", "b.runs.tuned.train", "b.schedule"]) == {"w.pth"}
    assert projection.files(["b.model", "b.runs.ce.train"]) == set()


def test_a_model_is_rebuilt_without_the_file_of_its_weights(tmp_path, trained):
    from ltpipe.storage.weights import pack_weights

    path = tmp_path / "w.safetensors"
    save_file(trained, path)
    of = model("test_resnet", weights=str(path), pretrained_on="shapes")
    network = untrained(Run(method="ce"), of, tiny.COUNTS).network
    path.unlink()
    servable, _ = rebuild(pack_weights(network.state_dict(), {"classes_counts": tiny.COUNTS}), Run(method="ce"), of)
    assert tiny.same(servable.network.state_dict(), network.state_dict())


def test_weights_say_what_they_have_seen():
    with pytest.raises(ValueError, match="pretrained_on is missing"):
        backbone.Config(name="resnet50", weights="w.pth")
    with pytest.raises(ValueError, match="needs the tag in the name"):
        backbone.Config(name="resnet50", weights="timm")
    with pytest.raises(ValueError, match="pretrained_on is missing"):
        backbone.Config(name="vit_small_patch16_224.dino", weights="timm")
    with pytest.raises(ValueError, match="there are none"):
        backbone.Config(name="resnet50", pretrained_on="in1k")
    assert backbone.Config(name="resnet50").seen() is None
    assert backbone.Config(name="resnet50.tv_in1k", weights="timm").seen() == "in1k"
    assert backbone.Config(name="convnext_nano.in12k_ft_in1k", weights="timm").seen() == "in12k, in1k"
    assert backbone.Config(name="resnet50", weights="w.pth", pretrained_on="birds").seen() == "birds"


# weights from the hub


@pytest.fixture
def hub(tmp_path, monkeypatch, trained):
    """A hub with one file, and the addresses that were asked of it."""
    import huggingface_hub

    asked = []
    path = tmp_path / "hub.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=1000).state_dict(), path)
    size = type("Metadata", (), {"size": 1_500_000})
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(path) if asked else None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda address: asked.append(address) or size)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(path))
    return asked


def test_weights_of_the_hub_are_announced_once_and_their_checksum_is_kept(hub, caplog):
    of = model("test_resnet.r160_in1k", weights="timm")
    with caplog.at_level(logging.INFO, "ltpipe.training"):
        facts = [of.find_weights()[1] for _ in range(2)]
    assert len(hub) == 1 and "timm/test_resnet.r160_in1k" in hub[0]
    assert [r.message for r in caplog.records if "2 MB" in r.message and "licence apache-2.0" in r.message] and (
        len(caplog.records) == 1
    )
    assert facts[0] == facts[1] and re.fullmatch("[0-9a-f]{64}", facts[0]["sha256"])
    assert (facts[0]["seen"], facts[0]["licence"]) == ("in1k", "apache-2.0")


def test_without_a_network_the_message_says_what_to_get_and_where_to_put_it(monkeypatch):
    import huggingface_hub

    def offline(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    with pytest.raises(Refused) as refused:
        model("resnet50.tv_in1k", weights="timm").find_weights()
    for part in ("resnet50.tv_in1k: no route", "timm/resnet50.tv_in1k", "bsd-3-clause", "weights: PATH"):
        assert part in refused.value.message
