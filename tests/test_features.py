"""What images are clustered by: each module on real files, networks and their cache, and what must be refused."""

import hashlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image

from ltpipe.clustering.cluster import Clusters, Features, cluster
from ltpipe.config.spec import Refused, Spec, load_item, menu_names
from ltpipe.data import arrays
from ltpipe.data.source import Source, SourceImages
from ltpipe.data.split import Split
from ltpipe.extraction import passage
from ltpipe.extraction.passage import Given
from ltpipe.features.torchvision import _fetch_weights
from ltpipe.models.pixels import channel_scale, normalise
from ltpipe.recipe.run import rebuild
from ltpipe.storage.weights import pack_weights
from pipelines import cluster as cluster_stage
from pipelines import split as split_stage

NAMES = menu_names(Features.menu)
COUNT, SIDE = 20, 24
SOURCE = Source(name="tiny_imagenet", size=8)  # its read() decodes any file below the folder
ROWS = np.arange(1, COUNT, 2)
SMALL = {"model": "resnet18", "resize": SIDE, "crop": 16, "batch": 4}


@pytest.fixture(scope="module")
def pixels():
    """The images behind `folder`."""
    return np.random.RandomState(0).randint(0, 256, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    """20 image files of 24 x 24 in a folder of no special name."""
    (tmp_path / "raw").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"raw/{number}.png")
    return tmp_path


@pytest.fixture(scope="module")
def index():
    return pd.DataFrame({"file": [f"{n}.png" for n in range(COUNT)], "label": 0, "attribute": np.arange(COUNT) % 3})


def weights(path, seed=0, model="resnet18"):
    """A file of random weights."""
    import torchvision

    torch.manual_seed(seed)
    torch.save(torchvision.models.get_model(model, weights=None).state_dict(), path)
    return str(path)


def extract(name, options, index, folder, cache=None, checkpoint=None):
    features = Features(name=name, options=options)
    given = Given(SourceImages(SOURCE, folder / "raw"), cache, checkpoint)
    return features.module().extract(features.config(), index, ROWS, given)


@pytest.fixture
def resnet(folder):
    """Options of a ResNet-18 with random weights."""
    return SMALL | {"weights": weights(folder / "random.pth")}


@pytest.mark.parametrize("name", NAMES)
def test_every_module_says_what_it_is_and_has_the_one_signature(name):
    module = load_item(Features.menu, name)
    assert module.__doc__
    assert issubclass(module.Config, Spec) and module.Config.__doc__
    assert list(inspect.signature(module.extract).parameters) == ["config", "index", "rows", "given"]
    assert module.extract.__doc__


def test_naming_a_network_loads_none(root):
    code = "import sys\nfrom ltpipe.clustering.cluster import Clusters\nClusters(features={'name': 'torchvision'})\n"
    code += "Clusters(features={'name': 'checkpoint', 'options': {'path': 'x'}})\n"
    code += "Clusters(features={'name': 'checkpoint'}, start_from='digits_glt.ce.s0')\n"
    code += "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "'pydantic'" in done.stdout
    loaded = set(done.stdout.strip(" []\n").split(", "))
    assert not {f"'{name}'" for name in ("torch", "torchvision", "sklearn", "pandas")} & loaded


def test_the_cluster_stage_depends_on_the_code_of_its_features_and_the_split_does_not():
    assert Clusters(features={"name": "torchvision"}).modules() == {"ltpipe.features.torchvision"}
    options = {"sizes": "3x2", "clusters": 6, "groups": {"by": "rank", "many": 1, "medium": 1}}
    assert Split(kind="glt_clusters", options=options).modules() == {"ltpipe.data.splits.glt_clusters"}


def test_pixels_are_the_source_s_own_at_another_size(index, folder, pixels, monkeypatch):
    found = extract("pixels", {"size": SIDE}, index, folder)
    assert found.dtype == np.uint8 and (found == pixels[ROWS].reshape(len(ROWS), -1)).all()
    monkeypatch.setattr(arrays, "IN_MEMORY", 3 * SIDE * SIDE * 3)
    mapped = extract("pixels", {"size": SIDE}, index, folder)
    assert isinstance(mapped, np.memmap) and (mapped == found).all()


def test_torchvision_gives_what_the_classifier_is_given_of_images_as_torchvision_prepares_them(
    index, folder, pixels, resnet
):
    import torchvision
    from torchvision import transforms

    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(torch.load(resnet["weights"], weights_only=True))
    network.fc = torch.nn.Identity()
    prepare = transforms.Compose([transforms.Resize(20), transforms.CenterCrop(16), transforms.ToTensor()])
    images = torch.stack([prepare(Image.fromarray(image)) for image in pixels[ROWS]])
    with torch.no_grad():
        wanted = network.eval()(images).numpy()
    found = extract("torchvision", resnet | {"resize": 20}, index, folder)
    assert found.shape == (len(ROWS), 512) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_mean_and_std_are_those_of_torchvision(index, folder, resnet):
    from torchvision.transforms.functional import normalize

    channels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    found = extract("torchvision", resnet | {"layer": "conv1", "crop": SIDE} | channels, index, folder)
    state = torch.load(resnet["weights"], weights_only=True)
    image = torch.tensor(np.array(Image.open(folder / "raw/1.png"))).permute(2, 0, 1) / 255
    wanted = torch.nn.functional.conv2d(
        normalize(image, **channels)[None], state["conv1.weight"], stride=2, padding=3
    ).flatten()
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "width"), [("layer1", 64 * 16), ("layer4.1.conv2", 512), ("avgpool", 512), ("fc", 1000)]
)
def test_a_layer_is_flattened(index, folder, resnet, layer, width):
    assert extract("torchvision", resnet | {"layer": layer}, index, folder).shape == (len(ROWS), width)


def test_a_layer_s_output_is_taken_before_the_next_one_overwrites_it(index, folder, resnet):
    assert (extract("torchvision", resnet | {"layer": "bn1"}, index, folder) < 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "layer5"}, "no layer 'layer5': no 'layer5' among conv1, bn1, relu, maxpool, layer1"),
        ({"layer": "layer4.7"}, "no '7' among 0, 1"),
        ({"layer": "fc.weight"}, "no 'weight' among none"),
        ({"model": "resnet19"}, "no model 'resnet19'; models: alexnet, "),
        ({"weights": "IMAGENET1K_V9"}, "no weights 'IMAGENET1K_V9'; weights: IMAGENET1K_V1, or a path to a .pth file"),
        ({"weights": "none.pth"}, "no file none.pth; weights: IMAGENET1K_V1, or"),
        ({"classes": 365}, r"not a state dict of this ResNet .*\n.*size mismatch for fc.weight"),
        ({"model": "resnet34"}, r"not a state dict of this ResNet .*\n.*Missing key.*layer1.2"),
        ({"model": "squeezenet1_1"}, "not a state dict of this SqueezeNet"),
    ],
)
def test_a_network_that_cannot_be_had_is_refused_before_an_image_is_read(index, folder, resnet, options, message):
    for file in (folder / "raw").iterdir():
        file.unlink()
    with pytest.raises(Refused, match=message):
        extract("torchvision", resnet | options, index, folder)


def test_a_network_without_linear_layer_needs_a_layer(index, folder):
    options = SMALL | {"model": "squeezenet1_1", "crop": SIDE}
    options["weights"] = weights(folder / "squeeze.pth", model="squeezenet1_1")
    with pytest.raises(Refused, match="has no linear layer: state layer, one of features, classifier"):
        extract("torchvision", options, index, folder)
    assert extract("torchvision", options | {"layer": "classifier.3"}, index, folder).shape == (len(ROWS), 1000)


@pytest.mark.parametrize("content", [b"no weights", b"", "a number", "code"])
def test_a_file_that_is_no_state_dict_is_refused(index, folder, content):
    path = folder / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a number": 3, "code": os.system}[content], path)
    with pytest.raises(Refused, match=r"wrong\.pth is (no file of weights|not a state dict)"):
        extract("torchvision", SMALL | {"weights": str(path)}, index, folder)


def test_weights_without_counts_of_batches_fit_as_those_of_old_files_do(index, folder, resnet):
    state = torch.load(resnet["weights"], weights_only=True)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, folder / "old.pth", _use_new_zipfile_serialization=False)
    found = extract("torchvision", resnet | {"weights": str(folder / "old.pth")}, index, folder)
    assert (found == extract("torchvision", resnet, index, folder)).all()


def test_weights_that_cannot_be_fetched_are_named_with_size_terms_and_place(index, folder, monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(Refused) as refused:
        extract("torchvision", {}, index, folder)
    for words in (
        "ResNet50_Weights.IMAGENET1K_V1: <urlopen error no route to host>",
        "resnet50-0676ba61.pth, 97.8 MiB, from https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "terms  https://github.com/pytorch/vision#pre-trained-model-license",
        f"put it at {folder}/torch/hub/checkpoints/resnet50-0676ba61.pth",
        "features that need no weights: cluster: {features: {name: pixels",
        "block cluster: {features: {name: torchvision, options: {weights: /path/resnet50-0676ba61.pth}}}",
    ):
        assert words in refused.value.message


def test_weights_put_in_torch_hub_s_folder_must_be_the_published_file(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    place = folder / "hub/checkpoints"
    place.mkdir(parents=True)
    name = f"x-{hashlib.sha256(b'published').hexdigest()[:8]}.pth"
    published = SimpleNamespace(url=f"https://host/models/{name}", meta={})
    (place / name).write_bytes(b"published")
    assert _fetch_weights(published) == place / name
    (place / name).write_bytes(b"another")
    with pytest.raises(Refused, match=r"is not the file https://host/models/x-\w+\.pth .*: delete it"):
        _fetch_weights(published)


@pytest.fixture
def stopped(monkeypatch):
    """stopped(): from here on, a network that runs is an error."""

    def run(*_):
        raise AssertionError("the network runs")

    return lambda: monkeypatch.setattr(passage, "_forward", run)


def test_a_network_runs_once(index, folder, resnet, stopped):
    cache = folder / "cache"
    first = extract("torchvision", resnet, index, folder, cache)
    assert isinstance(first, np.memmap)
    assert (first == extract("torchvision", resnet, index, folder)).all()
    stopped()
    assert (extract("torchvision", resnet, index, folder, cache) == first).all()


@pytest.mark.parametrize("change", ["weights", "layer", "image", "source", "rows", "code"])
def test_what_features_depend_on_is_in_the_key(index, folder, resnet, stopped, monkeypatch, change):
    cache = folder / "cache"
    extract("torchvision", resnet, index, folder, cache)
    stopped()
    if change == "weights":
        resnet["weights"] = weights(folder / "random.pth", seed=1)
    elif change == "layer":
        resnet["layer"] = "layer3"
    elif change == "image":
        Image.new("RGB", (SIDE, SIDE)).save(folder / "raw/3.png")
    elif change == "source":
        monkeypatch.setattr("test_features.SOURCE", SOURCE.model_copy(update={"options": {"root": "elsewhere"}}))
    elif change == "rows":
        index = index.iloc[::-1].reset_index(drop=True)
    else:
        monkeypatch.setattr(passage, "code_version", lambda modules: "another")
    with pytest.raises(AssertionError, match="the network runs"):
        extract("torchvision", resnet, index, folder, cache)
    assert len([path for path in cache.iterdir() if path.suffix != ".lock"]) == 1


def test_features_are_the_same_in_memory_mapped_and_in_any_blocks(index, folder, resnet, monkeypatch):
    whole = extract("torchvision", resnet, index, folder)
    assert not isinstance(whole, np.memmap)
    monkeypatch.setattr(passage, "BLOCK", 5 * SIDE * SIDE * 3)
    monkeypatch.setattr(arrays, "IN_MEMORY", 1000)
    before = sorted(path.name for path in folder.iterdir())
    mapped = extract("torchvision", resnet, index, folder)
    assert isinstance(mapped, np.memmap) and (mapped == whole).all()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_too_little_room_for_features_is_said_and_leaves_nothing(index, folder, resnet, monkeypatch):
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(Refused, match=r"features of 10 images need 1 x 20,480 bytes in .*cache, 1,000 are free"):
        extract("torchvision", resnet, index, folder, folder / "cache")
    assert [path.suffix for path in (folder / "cache").iterdir()] == [".lock"]


def test_an_image_that_cannot_be_read_leaves_no_features(index, folder, resnet, monkeypatch):
    monkeypatch.setattr(passage, "BLOCK", 1)
    (folder / "raw/19.png").write_bytes(b"")
    with pytest.raises(Refused, match=r"19\.png"):
        extract("torchvision", resnet, index, folder, folder / "cache")
    assert [path.suffix for path in (folder / "cache").iterdir()] == [".lock"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(index, folder, resnet):
    with pytest.raises(Refused, match="torch finds no CUDA device"):
        extract("torchvision", resnet | {"device": "cuda"}, index, folder)


def checkpoint(path, method="ce", options=None, **changes):
    """A checkpoint of the tiny problem, as training packs it, and its run."""
    task = tiny.task(path.parent, method, options)
    facts = {
        "classes_counts": list(tiny.COUNTS),
        "parameters": {"run": task.run.model_dump(mode="json"), "model": tiny.MODEL.model_dump(mode="json")},
    }
    path.write_bytes(pack_weights(tiny.built(task).network.state_dict(), facts | changes))
    return {"path": str(path)}, task.run


def through(options, run, pixels):
    """Features, and logits, of the checkpoint's network on the centre of images."""
    network = rebuild(Path(options["path"]).read_bytes(), run, tiny.MODEL)[0].network
    mean, std = channel_scale(tiny.MODEL.mean), channel_scale(tiny.MODEL.std)
    with torch.no_grad():
        return network(normalise(torch.tensor(pixels), tiny.MODEL.image, mean, std))


def test_a_checkpoint_s_features_are_those_of_its_network_on_centres(index, folder, pixels):
    options, run = checkpoint(folder / "checkpoint.safetensors")
    found = extract("checkpoint", options | {"size": SIDE}, index, folder)
    wanted = through(options, run, pixels[ROWS])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.features, rtol=1e-5, atol=1e-6)
    logits = extract("checkpoint", options | {"size": SIDE, "layer": "head"}, index, folder)
    np.testing.assert_allclose(logits, wanted.logits, rtol=1e-5, atol=1e-6)


def test_images_are_read_at_the_checkpoint_s_size(index, folder):
    from ltpipe.data.decode import decode

    options, run = checkpoint(folder / "checkpoint.safetensors")
    images = decode([folder / "raw" / file for file in index["file"].iloc[ROWS]], tiny.SIZE)
    found = extract("checkpoint", options, index, folder)
    np.testing.assert_allclose(found, through(options, run, images).features, rtol=1e-5, atol=1e-6)


def test_experts_stand_side_by_side(index, folder, pixels):
    options, run = checkpoint(folder / "checkpoint.safetensors", "ride", {"experts": 2})
    found = extract("checkpoint", options | {"size": SIDE}, index, folder)
    wanted = through(options, run, pixels[ROWS]).features
    assert wanted.shape[:2] == (len(ROWS), 2)
    np.testing.assert_allclose(found, wanted.flatten(1), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_s_network_runs_once(index, folder, stopped):
    options, _ = checkpoint(folder / "checkpoint.safetensors")
    first = extract("checkpoint", options, index, folder, folder / "cache")
    stopped()
    assert (extract("checkpoint", options, index, folder, folder / "cache") == first).all()
    checkpoint(folder / "checkpoint.safetensors", "logit_adjust")
    with pytest.raises(AssertionError, match="the network runs"):
        extract("checkpoint", options, index, folder, folder / "cache")


@pytest.mark.parametrize("options", [{}, {"layer": "head", "size": SIDE}])
def test_the_content_of_start_from_gives_the_same_as_its_path(index, folder, options):
    path = Path(checkpoint(folder / "checkpoint.safetensors")[0]["path"])
    wanted = extract("checkpoint", options | {"path": str(path)}, index, folder)
    content = path.read_bytes()
    path.unlink()
    assert (extract("checkpoint", options, index, folder, checkpoint=content) == wanted).all()


def test_the_cache_does_not_depend_on_how_a_checkpoint_is_named(index, folder, stopped):
    options, _ = checkpoint(folder / "checkpoint.safetensors")
    content = Path(options["path"]).read_bytes()
    wanted = extract("checkpoint", options, index, folder, folder / "cache")
    stopped()
    assert (extract("checkpoint", {}, index, folder, folder / "cache", content) == wanted).all()


def test_a_content_of_start_from_that_cannot_be_used_is_refused(index, folder):
    with pytest.raises(Refused, match=r"cannot read .*the checkpoint of start_from as a checkpoint: "):
        extract("checkpoint", {}, index, folder, checkpoint=b"x" * 64)
    options, _ = checkpoint(folder / "checkpoint.safetensors")
    with pytest.raises(Refused, match=r"the checkpoint of start_from: no layer 'neck': no 'neck' among backbone"):
        extract("checkpoint", {"layer": "neck"}, index, folder, checkpoint=Path(options["path"]).read_bytes())


def test_a_checkpoint_that_cannot_be_used_is_refused(index, folder):
    path = folder / "checkpoint.safetensors"
    with pytest.raises(Refused, match=r"cannot read the checkpoint .*checkpoint\.safetensors: .*No such file"):
        extract("checkpoint", {"path": str(path)}, index, folder)
    for content in (b"", b"\x08\0\0\0\0\0\0\0{}      ", b"x" * 64):
        path.write_bytes(content)
        with pytest.raises(Refused, match=r"cannot read .* as a checkpoint"):
            extract("checkpoint", {"path": str(path)}, index, folder)
    options, run = checkpoint(path)
    for more, message in (
        ({"layer": "neck"}, "no 'neck' among backbone, head, own"),
        ({"size": 4}, "size 4 is smaller"),
    ):
        with pytest.raises(Refused, match=message):
            extract("checkpoint", options | more, index, folder)
    wide = tiny.MODEL.model_dump(mode="json") | {"options": {"width": 8}}
    checkpoint(path, parameters={"run": run.model_dump(mode="json"), "model": wide})
    with pytest.raises(Refused, match="do not fit the network of this code version"):
        extract("checkpoint", options, index, folder)
    checkpoint(path, parameters={"run": {"method": "none", "split": "train"}, "model": wide})
    with pytest.raises(Refused, match=r"no 'none' in ltpipe\.methods"):
        extract("checkpoint", options, index, folder)


def run(pipeline, inputs):
    """Outputs of a pipeline by name; the inputs are kept in memory."""
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in inputs.items()})
    return {name: output.load() for name, output in SequentialRunner().run(pipeline, catalog).items()}


def test_the_pipeline_clusters_the_source_s_images_and_the_split_is_drawn_from_the_clusters(tmp_path):
    """Two classes of 20 red and 20 blue images each, in a folder that no name leads to: pixels find the colours."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = [f"{label}-{number:02d}" for label in range(2) for number in range(40)]
    for name in names:
        Image.new("RGB", (8, 8), "red" if int(name[2:]) % 2 else "blue").save(elsewhere / f"{name}.png")
    table = pd.DataFrame({"image": names, "source": names, "file": [f"{name}.png" for name in names]})
    table = table.assign(label=[int(name[0]) for name in names], class_name="c", attribute=-1, official="train")
    inputs = {"b.index": table, "raw_tiny_imagenet": elsewhere, "params:b.source": SOURCE}
    inputs["params:b.cluster"] = Clusters(
        features={"name": "pixels", "options": {"size": 8}}, count=2, cache=str(tmp_path / "cache")
    )
    clustered = run(cluster_stage.create("b", "tiny_imagenet", {}), inputs)["b.clustered"]
    colour = clustered["image"].str[2:].astype(int) % 2
    assert len(set(zip(clustered["label"], clustered["attribute"], colour, strict=True))) == 4
    assert clustered["attribute"].isin([0, 1]).all()

    options = {
        "clusters": 2,
        "sizes": "10 8",
        "shares": [3, 1],
        "test_gbl": 2,
        "test_cbl": [2, 1],
        "train_cbl": [2, 1],
        "test_glt": 2,
        "val": 2,
        "groups": {"by": "rank", "many": 1, "medium": 1},
    }
    stage = split_stage.create("b", "tiny_imagenet", "b.clustered", cluster=True)
    drawn = stage.only_nodes_with_outputs("b.candidate")
    inputs = {"b.clustered": clustered, "params:b.split": Split(kind="glt_clusters", options=options)}
    manifest = run(drawn, inputs)["b.candidate"]
    colour = manifest["image"].str[2:].astype(int) % 2
    for _, rows in colour.groupby([manifest["label"], manifest["attribute"]]):
        assert rows.nunique() == 1
    assert manifest["attribute"].nunique() == 2


# Kedro warns of a dataset of another namespace, once in a process
@pytest.mark.filterwarnings("ignore:One or more dataset names contain '.' characters")
def test_the_pipeline_hands_the_checkpoint_of_start_from_to_the_features(index, folder):
    options, _ = checkpoint(folder / "checkpoint.safetensors")
    settings = {"count": 3, "restarts": 2, "cache": None}
    table = index.assign(image=index["file"], official="train")
    by_path = Clusters(features={"name": "checkpoint", "options": options}, **settings)
    wanted = cluster(table, SOURCE, folder / "raw", by_path)
    content = Path(options["path"]).read_bytes()
    Path(options["path"]).unlink()
    inputs = {"b.index": table, "raw_tiny_imagenet": folder / "raw", "params:b.source": SOURCE}
    inputs["params:b.cluster"] = Clusters(features={"name": "checkpoint"}, start_from="other.ce.s0", **settings)
    stage = cluster_stage.create("b", "tiny_imagenet", {"checkpoint": "other.ce.s0.checkpoint"})
    found = run(stage, inputs | {"other.ce.s0.checkpoint": content})["b.clustered"]
    pd.testing.assert_frame_equal(found, wanted)
    with pytest.raises(Refused, match="the checkpoint of start_from"):
        run(stage, inputs | {"other.ce.s0.checkpoint": b"x" * 64})


@pytest.mark.parametrize(
    ("name", "options", "files"),
    [
        ("pixels", {}, set()),
        ("file", {"path": "x.npy"}, {"x.npy"}),
        ("checkpoint", {"path": "data/x.safetensors"}, {"data/x.safetensors"}),
        ("torchvision", {"weights": "own.pth"}, {"own.pth"}),
        ("torchvision", {}, set()),
    ],
)
def test_the_ledger_knows_the_files_that_features_come_from(name, options, files):
    assert Clusters(features={"name": name, "options": options}).files() == files


def test_start_from_names_no_file_of_the_user():
    assert Clusters(features={"name": "checkpoint"}, start_from="other.ce.s0").files() == set()


def test_the_ledger_knows_the_files_of_the_authors():
    options = {"sizes": [9, 8], "pool": 9, "shares": [2, 1], "test_gbl": 1, "test_cbl": [2, 1], "train_cbl": [2, 1]}
    options |= {"test_glt": 1, "val": 1, "groups": {"by": "rank", "many": 1, "medium": 1}}
    assert Split(kind="glt_clusters", options=options).files() == set()
    authors = {"long_tail": "a.json", "balanced": "b.json"}
    assert Split(kind="glt_clusters", options=options | {"authors": authors}).files() == {"a.json", "b.json"}
