"""A network that this project trained, rebuilt from what its checkpoint says of itself.

Its classes and images may be another benchmark's. Images pass through what is exported (normalisation, centre) before
they reach the network. The checkpoint's method and backbone are code that the features depend on, but the parameters do
not name it: after a change there, `dvc repro --force` the data stage.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ltpipe.data.fetch import Images
from ltpipe.data.tables import Table
from ltpipe.export import load
from ltpipe.features.base import Forward, Network, Passage, computed, heard, module_of
from ltpipe.models.spec import Model
from ltpipe.runs import Run
from ltpipe.specs import Refused, parse

if TYPE_CHECKING:
    import torch


class Config(Network):
    """path: checkpoint.safetensors. layer: `features`, what the classifier is given, or a module of the network.

    size: height and width at which images are read; default the network's. Larger images give their centre, as in
    training with a larger source.size.
    """

    path: str
    layer: str = "features"
    size: int | None = Field(None, gt=0)

    def files(self) -> frozenset[str]:
        return frozenset({self.path})


def extract(config: Config, index: Table, rows: np.ndarray, images: Images, cache: Path | None) -> np.ndarray:
    """Output of the layer for each of `rows`, float32, N x D; several experts side by side.

    Raises Refused where the path is no checkpoint, its network cannot be rebuilt, or has no such layer.
    """
    content, run, model = _read(Path(config.path))
    size, device = config.size or model.image, config.where()
    if size < model.image:
        raise Refused(f"features: checkpoint: size {size} is smaller than the network's images, {model.image}")
    facts = {"layer": config.layer, "batch": config.batch, "weights": hashlib.sha256(content).hexdigest()}
    passage = Passage(index["file"].iloc[rows].tolist(), images, size, config.batch, device)
    modules = [__name__, *run.modules(), *model.modules()]
    return computed(passage, lambda: _forward(config, content, run, model, device), facts, modules, cache)


def _read(path: Path) -> tuple[bytes, Run, Model]:
    """Content, and the blocks that the network is built from."""
    from safetensors import SafetensorError

    from ltpipe.weights import unpack

    try:
        content = path.read_bytes()
        parameters = unpack(content)[1]["parameters"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"features: cannot read the checkpoint {path}: {type(error).__name__}: {error}") from None
    return content, parse(Run, parameters["run"], f"{path}, run"), parse(Model, parameters["model"], f"{path}, model")


def _forward(config: Config, content: bytes, run: Run, model: Model, device: "torch.device") -> Forward:
    """images uint8, B x size x size x 3 -> features, float32, B x D."""
    try:
        servable = load(content, run, model)[0].to(device)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:500]
        raise Refused(
            f"features: {config.path}: its weights do not fit the network of today's code: {reason}"
        ) from None
    network = servable.network
    features = config.layer == "features"
    module = network.backbone if features else module_of(network, config.layer, f"the network of {config.path}")
    return heard(servable, module)
