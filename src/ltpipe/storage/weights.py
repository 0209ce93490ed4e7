"""Trained weights and their provenance in one safetensors file: no pickle, and equal content gives equal bytes."""

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load, save
from torch import Tensor


def pack_weights(weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes of a safetensors file with the weights (by name) and the metadata, which must be JSON-able."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # safetensors metadata maps text to text, in no fixed order: one key keeps the bytes reproducible
    return save(tensors, {"ltpipe": json.dumps(metadata, sort_keys=True)})


def unpack_weights(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the metadata that `pack_weights` packed."""
    return load(content), unpack_facts(content)


def unpack_facts(content: bytes) -> dict[str, Any]:
    """Return the metadata alone."""
    # safetensors.torch.load drops the metadata. A file starts with the header's length: 8 bytes, little-endian.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["ltpipe"])
    return facts
