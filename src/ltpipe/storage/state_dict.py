"""Weights that somebody else trained, from a file of the user's: tensors by name, and never code.

A safetensors file holds tensors alone. A file of torch.save is a pickle, of which torch's loader with weights_only
takes tensors and plain containers, and refuses whatever would run.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ltpipe.config.spec import Refused

# keys under which training programs keep the state dict beside an optimiser's state
INSIDE = ("state_dict", "model")


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
