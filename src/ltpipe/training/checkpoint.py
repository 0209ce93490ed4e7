"""Resume points: read with weights_only (no pickle), written whole or not at all."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ltpipe.storage.atomic import write


def save_resume(path: Path, state: Mapping[str, Any]) -> None:
    """A resume point: tensors, numbers, strings, lists and dicts only."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write(path, buffer.getvalue())


def load_resume(path: Path, fingerprint: str) -> tuple[dict[str, Any] | None, str]:
    """The resume point of the same fingerprint, or None; and why.

    A resume point of other code, data or parameters is never used; an unreadable one neither.
    """
    if not path.exists():
        return None, "no resume point"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file; all mean the same here
        return None, f"resume point unreadable ({type(error).__name__}), starting over"
    if state.get("fingerprint") != fingerprint:
        return None, "resume point is of other code, data or parameters, starting over"
    return state, "resuming"
