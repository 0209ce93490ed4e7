"""The output of a layer of a torchvision network, with published weights or with the user's state dict.

The defaults are the features that Tang et al. (ECCV 2022) cluster: ResNet-50, IMAGENET1K_V1, the 2,048 inputs of the
classifier, for images resized to 260 and cut to their centre of 256, pixels in 0..1 without subtracting a mean (set
mean and std to subtract one). Weights trained on ImageNet have seen the images of a test split drawn from it.

torch.hub downloads weights that are named, and checks them against the checksum in the file's name; it keeps them in
its own folder ($TORCH_HOME). For a source with a fixed size (cifar10, digits), set resize and crop to that size.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused
from ltpipe.extraction.layer import Forward, capture_output, find_layer
from ltpipe.extraction.passage import Given, NetworkOptions, Passage, compute_features, file_digest
from ltpipe.models.model import Channel
from ltpipe.storage.table import Table

if TYPE_CHECKING:
    import torch
    from torch import nn

TERMS = "https://github.com/pytorch/vision#pre-trained-model-license"
LINES, WIDTH = 6, 200  # of an error of torch, which may name hundreds of tensors


class Config(NetworkOptions):
    """The network, its weights, and the images it takes. Without `layer`: the input of the last linear layer."""

    model: str = Field("resnet50", description="a name of torchvision.models")
    weights: str = Field("IMAGENET1K_V1", description="name of the weights, or path of a state dict, ending in .pth")
    classes: int = Field(1000, gt=0, description="outputs of the network that the weights belong to")
    resize: int = Field(260, gt=0, description="height and width at which images are read, in pixels")
    crop: int = Field(256, gt=0, description="height and width of their centre, which the network takes, in pixels")
    mean: tuple[Channel, Channel, Channel] = Field((0, 0, 0), description="mean of each channel, pixels in 0..1")
    std: tuple[Channel, Channel, Channel] = Field((1, 1, 1), description="standard deviation of each channel")

    @model_validator(mode="after")
    def _check_values(self) -> "Config":
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self

    def files(self) -> frozenset[str]:
        return frozenset({self.weights} if self.weights.endswith(".pth") else ())


def extract(config: Config, index: Table, rows: np.ndarray, given: Given) -> np.ndarray:
    """Return the layer's output for each of `rows`, float32, N x D.

    Raises Refused if torchvision has no such model, weights or layer, or if the weights cannot be read or downloaded
    or do not fit the model.
    """
    import torchvision

    builder, path, device = _find_builder(config.model), _find_weights(config), config.torch_device()
    # the cache's key has the digest of the weights instead of their name, and the device from the passage
    facts = config.model_dump(mode="json", exclude={"device", "weights"})
    facts |= {"weights": file_digest(path), "torchvision": torchvision.__version__}
    passage = Passage(index["file"].iloc[rows].tolist(), given.images, config.resize, config.batch, device)

    def build() -> Forward:  # called only if the features are not in the cache
        return _build_network(config, builder, path, device)

    return compute_features(passage, build, facts, [__name__], given.cache)


def _find_builder(model: str) -> "Callable[..., nn.Module]":
    from torchvision import models

    valid = models.list_models(module=models)
    if model not in valid:
        raise Refused(f"features: torchvision: no model {model!r}; models: {', '.join(valid)}")
    return models.get_model_builder(model)


def _build_network(config: Config, builder: "Callable[..., nn.Module]", path: Path, device: "torch.device") -> Forward:
    """Return the function images (uint8, B x resize x resize x 3) -> features (float32, B x D)."""
    from ltpipe.models.pixels import channel_scale, normalise

    network = builder(weights=None, num_classes=config.classes)
    _load_weights(network, path)
    network = network.eval().to(device)
    where = f"torchvision's {config.model}"
    module = find_layer(network, config.layer, where) if config.layer else _find_classifier(network, where)
    # the classifier's output are logits: without `layer`, capture what goes into it
    forward = capture_output(network, module, inputs=not config.layer)
    mean, std = (channel_scale(values, device) for values in (config.mean, config.std))
    return lambda pixels: forward(normalise(pixels, config.crop, mean, std))


def _find_classifier(network: "nn.Module", where: str) -> "nn.Module":
    """Return the last linear layer. Raises Refused if there is none."""
    from torch import nn

    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        names = ", ".join(name for name, _ in network.named_children())
        raise Refused(f"features: {where} has no linear layer: state layer, one of {names} or of their parts")
    return linear[-1]


def _load_weights(network: "nn.Module", path: Path) -> None:
    """Load the state dict at `path` into the network. Raises Refused if a tensor is missing, left over or misshapen."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load raises errors of many classes
        raise Refused(f"features: {path} is no file of weights: {_shorten(error)}") from None
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        name = type(network).__name__
        raise Refused(
            f"features: {path} is not a state dict of this {name} (model, classes): {_shorten(error)}"
        ) from None


def _shorten(error: Exception) -> str:
    """Return the first lines of an error's message."""
    lines = [line.strip()[:WIDTH] for line in str(error).splitlines() if line.strip()]
    return "\n  ".join([*lines[:LINES], *(["..."] if len(lines) > LINES else [])])


def _find_weights(config: Config) -> Path:
    """Return the path of the weights; download them first if they are named and absent."""
    from torchvision import models

    path, known = Path(config.weights), models.get_model_weights(config.model)
    if path.suffix == ".pth" and path.is_file():
        return path
    if config.weights not in known.__members__:
        problem = f"no file {path}" if path.suffix == ".pth" else f"no weights {config.weights!r}"
        names = ", ".join(weights.name for weights in known)
        raise Refused(f"features: torchvision's {config.model}: {problem}; weights: {names}, or a path to a .pth file")
    return _fetch_weights(known[config.weights])


def _fetch_weights(weights: Any) -> Path:
    """Return the path of published weights in torch.hub's folder; download them if they are absent."""
    import torch

    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    if not path.exists():
        try:
            torch.hub.load_state_dict_from_url(
                weights.url, map_location="cpu", progress=sys.stderr.isatty(), check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise _download_error(weights, path, error) from None
    # also for a file that was there before: torch.hub checks only what it downloads
    checksum = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if checksum and not file_digest(path).startswith(checksum[1]):
        raise Refused(f"features: {path} is not the file {weights.url} (its SHA-256 differs): delete it")
    return path


def _download_error(weights: Any, path: Path, error: Exception) -> Refused:
    """Return the error for weights that cannot be downloaded: what to get, under which terms, and where to put it."""
    size = weights.meta.get("_file_size")
    block = f"cluster: {{features: {{name: torchvision, options: {{weights: /path/{path.name}}}}}}}"
    return Refused(
        f"features: cannot fetch torchvision's weights {weights}: {error}\n"
        f"  file   {path.name}{f', {size:.1f} MiB' if size else ''}, from {weights.url}\n"
        f"  terms  {weights.meta.get('license') or TERMS}; those of the images that they were trained on\n"
        f"  put it at {path}\n"
        f"  or anywhere, and name it in the benchmark's block {block}\n"
        "  or cluster by features that need no weights: cluster: {features: {name: pixels, options: {size: 16}}}"
    )
