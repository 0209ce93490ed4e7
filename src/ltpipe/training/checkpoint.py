"""Resume points: written atomically and with a checksum, read with weights_only, so that no pickled code is run.

A file is MAGIC, the SHA-256 of the rest as 64 hex digits, a line's end, and what torch.save wrote.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ltpipe.storage.atomic import write_atomically
from ltpipe.training.scratch import previous

MAGIC = b"ltpipe resume point 3\n"
START = len(MAGIC) + 64 + 1  # of what torch.save wrote
# what a resume point must hold: key -> type
RESUME = {
    "fingerprint": str,
    "phase": int,
    "epoch": int,
    "step": int,
    "kept": str,
    "weights": dict,
    "optimiser": dict,
    "average": dict,
    "rng": dict,
    "history": list,
    "sums": dict,
    "cost": dict,
}


class Unusable(Exception):
    """A point from which training cannot go on; the message says why."""


def save_resume(path: Path, state: Mapping[str, Any]) -> None:
    """Write a resume point, and keep the one before it, which is used if this one is damaged."""
    content = pack(state)
    if path.exists():
        path.replace(previous(path))
    write_atomically(path, content)


def pack(state: Mapping[str, Any]) -> bytes:
    """Return the bytes of a point; `state` holds only tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO(bytes(START))
    buffer.seek(START)
    torch.save(dict(state), buffer)
    with buffer.getbuffer() as content:
        checksum = hashlib.sha256(content[START:]).hexdigest()
        content[:START] = MAGIC + checksum.encode() + b"\n"
    return buffer.getvalue()


def usable(path: Path, fingerprint: str) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yield the newest resume point and the one before it, each with None or the reason why it cannot be used.

    A point that takes the place of a damaged newer one is moved there, so that the next one does not push it out.
    """
    for place in (path, previous(path)):
        try:
            state = load(place, fingerprint, RESUME)
        except FileNotFoundError:
            continue
        except Unusable as error:
            yield None, str(error)
            continue
        if place != path:
            place.replace(path)
        yield state, "resuming"


def load(path: Path, fingerprint: str, schema: Mapping[str, type]) -> dict[str, Any]:
    """Return a point. Raises Unusable, or FileNotFoundError if there is none.

    It is not usable if it is damaged, or if its fingerprint (code, data, parameters and device) is another one.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable(f"{path} cannot be read ({error.strerror})") from None
    checksum = hashlib.sha256(memoryview(content)[START:]).hexdigest()
    if content[:START] != MAGIC + checksum.encode() + b"\n":
        raise Unusable(f"{path} is damaged")
    try:
        state = torch.load(io.BytesIO(content[START:]), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for what it did not write; all mean the same
        raise Unusable(f"{path} is no resume point ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise Unusable(f"{path} is no resume point (a {type(state).__name__})")
    if wrong := [key for key, kind in schema.items() if not isinstance(state.get(key), kind)]:
        raise Unusable(f"{path} is no resume point (no {', '.join(wrong)})")
    if state["fingerprint"] != fingerprint:
        raise Unusable(f"{path} is from another device, or other code, data or parameters")
    return state
