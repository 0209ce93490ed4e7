"""Finished weights and their provenance as one safetensors file: no pickle, the same bytes for the same content."""

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load, save
from torch import Tensor


def pack(weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Weights and JSON metadata as one safetensors file; the same bytes for the same content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return save(tensors, {"ltpipe": json.dumps(metadata, sort_keys=True)})


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack` packed."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return load(content), json.loads(header["__metadata__"]["ltpipe"])
