"""Resume points: written atomically, read with weights_only, so that no pickled code is run."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ltpipe.storage.atomic import write_atomically


def save_resume(path: Path, state: Mapping[str, Any]) -> None:
    """Write a resume point; `state` holds only tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load_resume(path: Path, fingerprint: str) -> tuple[dict[str, Any] | None, str]:
    """Return the resume point if it can be used, else None; and the reason, for the log.

    It cannot be used if it is missing or unreadable, or if its fingerprint (code, data and parameters) is another one.
    """
    if not path.exists():
        return None, "no resume point"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file; all mean the same here
        return None, f"resume point unreadable ({type(error).__name__}), starting over"
    if state.get("fingerprint") != fingerprint:
        return None, "resume point is from other code, data or parameters, starting over"
    return state, "resuming"
