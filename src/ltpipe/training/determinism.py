"""The same bits from the same seed on the same machine: seeds, algorithms, and generators that need no state."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def fix(seed: int) -> None:
    """Seed torch's global generators, and forbid algorithms whose result depends on timing."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    # The same switch as use_deterministic_algorithms(True), which also imports the compiler (2 s) to set its option.
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Give torch `count` CPU threads for a while, and its own number again afterwards; None: its own number.

    Sums over another number of threads round differently: a cell must not keep the number of the cell before it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generator(device: torch.device, *key: object) -> torch.Generator:
    """Return a generator that is a function of `key` alone (seed, epoch, step, purpose), so it is never saved."""
    return torch.Generator(device).manual_seed(number(*key))


def number(*key: object) -> int:
    """Return the seed, 0 to 2^63 - 1, that stands for `key`."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(*key: object) -> Iterator[None]:
    """Seed torch's global CPU generator by `key` for a while, for code that takes no generator, and restore it."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(number(*key))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the global generators that training may use."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the global generators back into a state of `rng_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
