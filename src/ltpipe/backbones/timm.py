"""Any network of timm (Wightman, github.com/huggingface/pytorch-image-models) as features, its classifier taken off.

The weights are random; or those of a file (safetensors, or a state dict of torch.save, which never runs code); or those
that timm names, from the Hugging Face Hub, kept in its own folder ($HF_HOME). Where the block `model` states no image,
mean or std, they are the network's own. Pictures are packed bilinearly for every network, whatever timm says of its.

A method that needs several branches on a common trunk (RIDE, TADE, BBN) cannot have them: a network of timm has no
stages to cut. One that needs whole networks (LFF) has a copy for each branch.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.storage.identity import digest_file

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("ltpipe.training")

WHOLE = True  # it cannot be cut into a trunk and branches
LIBRARIES = ("timm",)  # whose version decides the weights too
HUB = "timm"  # weights: those that timm names
# Data sets that are a part of timm's tags, longest first; a tag like `dino` names none.
SETS = ("inat2021", "inat21", "in12k", "in21k", "in22k", "in1k")
NEAREST, WORDS = 8, 0.4  # how many similar names are shown, and how similar they are


class Config(Spec):
    """The network, and where its weights come from."""

    name: str = Field(
        description="a network of timm; with weights: timm also the tag of its weights, e.g. resnet50.tv_in1k"
    )
    weights: str = Field(
        "",
        description="path of a file: .safetensors, or a state dict of torch.save; or timm: its own, downloaded from "
        "the Hugging Face Hub; default: random weights",
    )
    pretrained_on: str | None = Field(
        None,
        description="what the weights have been trained on, e.g. in1k, or your own words; the report warns of test "
        "images that are a part of it. A file needs it; of timm's own weights the tag may say it",
    )

    @model_validator(mode="after")
    def _weights_say_what_they_have_seen(self) -> "Config":
        if not self.weights and self.pretrained_on:
            raise ValueError("pretrained_on is about weights, and there are none: state weights, a file or timm")
        if self.weights == HUB and "." not in self.name:
            raise ValueError(
                f"weights: {HUB} needs the tag in the name, e.g. resnet50.tv_in1k: timm's default may change; "
                f"all tags: python -c \"import timm; print(timm.list_pretrained('{self.name}.*'))\""
            )
        if self.weights and not self.seen():
            raise ValueError(
                "pretrained_on is missing: what have the weights been trained on? e.g. in1k (ImageNet, 1,000 classes), "
                "or your own words; the report warns of test images that are a part of it"
            )
        return self

    def seen(self) -> str | None:
        """Return what the weights have been trained on: as stated, or as timm's tag names it."""
        if self.pretrained_on or self.weights != HUB:
            return self.pretrained_on
        words = self.name.partition(".")[2].split("_")
        return ", ".join(part for part in SETS if part in words) or None

    def files(self) -> frozenset[str]:
        return frozenset({self.weights} if self.weights not in ("", HUB) else ())


def build(
    config: Config, branches: int, narrow: float = 1.0, private: str = "stages", image: int | None = None
) -> "nn.Module":
    """Return the network with random weights: images B x 3 x H x W -> B x D, or B x branches x D if branches > 1.

    image: H = W, for networks that take one size (ViT, Swin); default: their own. `narrow` has no effect.
    Raises Refused if timm has no such network, or if branches are to share a trunk.
    """
    from ltpipe.layers.whole_networks import WholeNetworks

    if branches > 1 and private != "all":
        raise Refused(f"backbone timm: {config.name} has no stages of which {branches} branches could share the first")
    networks = [_create(config.name, 0, image) for _ in range(branches)]
    features: Any = networks[0].head_hidden_size
    return WholeNetworks(networks, features)


def inputs(config: Config) -> dict[str, Any]:
    """Return the network's own image size, mean and std, in the form of the block `model`; timm is imported."""
    own = _settings(config.name)
    return {"image": own.input_size[1], "mean": tuple(own.mean), "std": tuple(own.std)}


def find_weights(config: Config) -> tuple[Path, dict[str, Any]] | None:
    """Return the file of the weights, downloaded if it is absent, and its facts for the provenance; None: random.

    Raises Refused if there is no such file, or if it cannot be downloaded.
    """
    if not config.weights:
        return None
    hub = config.weights == HUB
    path = _fetch(config.name) if hub else Path(config.weights)
    licence = {"licence": _settings(config.name).license or "not stated"} if hub else {}
    facts = {"name": config.name, "weights": config.weights, "sha256": digest_file(path), "seen": config.seen()}
    return path, facts | licence


def load_weights(config: Config, path: Path, branches: int, image: int | None = None) -> "dict[str, Tensor]":
    """Return the weights of a file by the names of `build`'s network, without the classifier's.

    timm brings older formats into today's, and position embeddings to the size of `image`. Raises Refused, in one line,
    if a tensor is missing, left over or of another shape.
    """
    from ltpipe.storage.weights import read_state_dict

    state = read_state_dict(path)
    network: Any = _create(config.name, _classes(config.name, state), image, state, path)
    network.reset_classifier(0)
    own = network.state_dict()
    return {f"branches.{branch}.{name}": value for branch in range(branches) for name, value in own.items()}


def _classes(name: str, state: "Mapping[str, Tensor]") -> int:
    """Return the classes of the classifier in a state dict; 0 if it has none."""
    layers = _settings(name).classifier
    first = layers if isinstance(layers, str) else next(iter(layers or ("",)))
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else len(weight)


def _create(
    name: str,
    classes: int,
    image: int | None,
    state: "Mapping[str, Tensor] | None" = None,
    path: Path | None = None,
) -> "nn.Module":
    """Return timm's network, with the weights `state` (of the file at `path`) if there are any."""
    import timm

    own = _settings(name)
    sized = {"img_size": image} if own.fixed_input_size and image not in (None, own.input_size[1]) else {}
    # equal numbers of classes here and there: only then does timm refuse a missing or an unexpected tensor
    given = {"state_dict": dict(state), "num_classes": classes} if state is not None else {}
    try:
        return timm.create_model(
            name, pretrained=bool(given), pretrained_cfg_overlay=given, num_classes=classes, **sized
        )
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        what = f"weights: {path} is not of timm's {name}" if given else f"backbone timm: {name} cannot be built"
        raise Refused(f"{what}: {reason[:400]}{' ...' if len(reason) > 400 else ''}") from None


def _settings(name: str) -> Any:
    """Return what timm states of a network's images and weights. Raises Refused, with the nearest names, if none."""
    import timm

    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        raise Refused(f"backbone timm: no network {network!r}; nearest: {_nearest(network, timm.list_models())}")
    if tag and name not in (known := timm.list_pretrained(f"{network}.*")):
        raise Refused(f"backbone timm: {network} has no weights {tag!r}; there are: {', '.join(known) or 'none'}")
    return timm.get_pretrained_cfg(name)


def _nearest(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, names, NEAREST, WORDS)
    return ", ".join(found) or f"none of {len(names):,}; they are listed by python -c 'import timm; timm.list_models()'"


def _fetch(name: str) -> Path:
    """Return the file of timm's own weights in the hub's folder; download it if it is absent, and say so once."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    own = _settings(name)
    if not own.hf_hub_id:
        raise Refused(f"backbone timm: the hub has no weights of {name}: download them, and state weights: PATH")
    file = own.hf_hub_filename or "model.safetensors"
    kept = try_to_load_from_cache(own.hf_hub_id, file)
    if isinstance(kept, str):
        return Path(kept)
    address, licence = hf_hub_url(own.hf_hub_id, file), own.license or "not stated"
    try:
        size = get_hf_file_metadata(address).size or 0
        log.info("downloading the weights of %s: %.0f MB, licence %s, %s", name, size / 1e6, licence, address)
        return Path(hf_hub_download(own.hf_hub_id, file))
    except Exception as error:  # noqa: BLE001 - the hub and what is beneath it raise errors of many classes
        reason = " ".join(str(error).split())[:200]
        raise Refused(
            f"backbone timm: cannot download the weights of {name}: {reason}\n"
            f"  file   {address} (licence: {licence})\n"
            f"  without a network: get this file elsewhere, and state weights: PATH/{file} and pretrained_on"
        ) from None
