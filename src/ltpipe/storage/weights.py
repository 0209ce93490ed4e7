"""Trained weights and their provenance in one safetensors file: no pickle, and equal content gives equal bytes.

The metadata state a digest of the weights, so that a damaged file is refused instead of answering otherwise.

Weights that somebody else trained come from a file of the user's, and never bring code: a safetensors file holds
tensors alone, and from a file of torch.save, a pickle, torch takes tensors and plain containers (weights_only), and
nothing that runs.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from ltpipe.config.spec import Refused

# keys under which training programs keep the state dict beside an optimiser's state
INSIDE = ("state_dict", "model")
DAMAGED = "the checkpoint is damaged ({why}): train its cell again"


def pack_weights(weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes of a safetensors file with the weights (by name) and the metadata, which must be JSON-able."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    facts = dict(metadata) | {"weights": digest_weights(tensors)}
    # safetensors metadata maps text to text, in no fixed order: one key keeps the bytes reproducible
    return save(tensors, {"ltpipe": json.dumps(facts, sort_keys=True)})


def digest_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the first 16 hex digits of a SHA-256 over names, types, shapes and bytes of the weights, on the CPU."""
    whole = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]


def unpack_weights(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the metadata that `pack_weights` packed. Raises Refused if the content is damaged."""
    facts = unpack_facts(content)
    try:
        weights = load(content)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise Refused(DAMAGED.format(why=error)) from None
    if digest_weights(weights) != facts.get("weights"):
        raise Refused(DAMAGED.format(why="its weights are not those that were written"))
    return weights, facts


def unpack_facts(content: bytes) -> dict[str, Any]:
    """Return the metadata alone. Raises Refused if there is none."""
    # safetensors.torch.load drops the metadata. A file starts with the header's length: 8 bytes, little-endian.
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        facts: dict[str, Any] = json.loads(header["__metadata__"]["ltpipe"])
    except (ValueError, KeyError, TypeError):
        raise Refused(DAMAGED.format(why="it has no header of ltpipe")) from None
    return facts


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a file of torch.save that holds a state dict.

    Raises Refused, in one line, if there is no such file, if it is broken, or if it holds anything but tensors.
    """
    if not path.is_file():
        raise Refused(f"weights: {path} is a folder, not a file" if path.is_dir() else f"weights: no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise Refused(f"weights: cannot read {path}: {shorten(str(error), 200)}") from None
    except Exception as error:  # noqa: BLE001 - torch.load raises errors of many classes
        reason = shorten(str(error).partition("\n")[0], 120, placeholder=" ...")
        raise Refused(
            f"weights: {path} is neither safetensors nor a state dict of tensors alone (code is never run): {reason}"
        ) from None
    return _require_tensors(content, path)


def _require_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a file held. Raises Refused if there is none."""
    inner = next((content[key] for key in INSIDE if isinstance(content, Mapping) and key in content), content)
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(value, Tensor) for value in inner.values()):
        raise Refused(f"weights: {path} holds no state dict (tensors by name), but a {type(inner).__name__}")
    # torch.nn.DataParallel puts `module.` before every name
    return {str(name).removeprefix("module."): tensor for name, tensor in inner.items()}
