"""The output of a layer of a network that this project trained, rebuilt from its checkpoint.

The checkpoint is that of the block's `start_from` (a cell of another benchmark), or a file of the user. It may have
been trained on other classes and other images. Images are preprocessed as in the exported model: centre, normalisation.

With `start_from`, the method and the backbone of that run are code dependencies of the stage `cluster`. With `path`
they are unknown until the file is read: after changing their code, run `dvc repro --force` on the stage.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, parse
from ltpipe.extraction.layer import Forward, capture_output, find_layer
from ltpipe.extraction.passage import Given, NetworkOptions, Passage, compute_features
from ltpipe.models.model import Model
from ltpipe.recipe.run import Run, rebuild
from ltpipe.storage.table import Table

if TYPE_CHECKING:
    import torch

TAKES_CHECKPOINT = True


class Config(NetworkOptions):
    """Which checkpoint, which layer of its network, and at which size images are read."""

    path: str = Field("", description="a checkpoint.safetensors, instead of the block's start_from")
    layer: str = Field("features", description="`features` (the classifier's input), or a module of the network")
    size: int | None = Field(
        None,
        gt=0,
        description="size in pixels at which images are read; the network takes their centre; default: its own size",
    )

    def files(self) -> frozenset[str]:
        return frozenset({self.path} if self.path else ())


def extract(config: Config, index: Table, rows: np.ndarray, given: Given) -> np.ndarray:
    """Return the layer's output for each of `rows`, float32, N x D; the features of several experts are concatenated.

    Raises Refused if the file is not a checkpoint, or if its network cannot be rebuilt or has no such layer.
    """
    where = config.path or "the checkpoint of start_from"
    content = given.checkpoint if given.checkpoint is not None else _read_file(config.path)
    run, model = _read_parameters(content, where)
    size, device = config.size or model.image, config.torch_device()
    if size < model.image:
        raise Refused(f"features: checkpoint: size {size} is smaller than the network's images, {model.image}")
    facts = {"layer": config.layer, "batch": config.batch, "weights": hashlib.sha256(content).hexdigest()}
    passage = Passage(index["file"].iloc[rows].tolist(), given.images, size, config.batch, device)
    modules = [__name__, *run.modules(), *model.modules()]

    def build() -> Forward:  # called only if the features are not in the cache
        return _build_network(config.layer, content, run, model, device, where)

    return compute_features(passage, build, facts, modules, given.cache)


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Refused(f"features: cannot read the checkpoint {path}: {error}") from None


def _read_parameters(content: bytes, where: str) -> tuple[Run, Model]:
    """Return the parameter blocks from which the network was built; the checkpoint stores them."""
    from ltpipe.storage.weights import unpack_facts

    try:
        parameters = unpack_facts(content)["parameters"]
    except (Refused, KeyError) as error:
        raise Refused(f"features: cannot read {where} as a checkpoint: {type(error).__name__}: {error}") from None
    return parse(Run, parameters["run"], f"{where}, run"), parse(Model, parameters["model"], f"{where}, model")


def _build_network(layer: str, content: bytes, run: Run, model: Model, device: "torch.device", where: str) -> Forward:
    """Return the function images (uint8, B x size x size x 3) -> features (float32, B x D)."""
    try:
        servable = rebuild(content, run, model)[0].to(device)
    except (RuntimeError, Refused) as error:  # Refused: damaged weights
        reason = " ".join(str(error).split())[:500]
        raise Refused(f"features: {where}: its weights do not fit the network of this code version: {reason}") from None
    network = servable.network
    module = network.backbone if layer == "features" else find_layer(network, layer, f"the network of {where}")
    return capture_output(servable, module)
