"""What a training costs: time, images, memory, and on what machine.

It depends on the machine, and on what else this does at the time. So it enters no fingerprint, no checkpoint and no
log, and its file is outside of the ledger.
"""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SELF = Path("/proc/self")  # where Linux tells a process of itself
PEAKS = ("host_bytes", "device_bytes")


class Meter:
    """What a training costs in this process, on top of what its earlier processes cost.

    images: that a step has trained on; an image counts in each epoch that draws it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.images, self.stepping = device, 0, 0.0
        self._began = time.perf_counter()
        self._epoch: float | None = None  # when the current one began
        self._before: dict[str, int | None] = dict.fromkeys(PEAKS)
        forget_peaks(device)

    def begin_epoch(self) -> None:
        """Start the clock of the steps."""
        self._epoch = time.perf_counter()

    def end_epoch(self) -> float:
        """Stop the clock of the steps, before the validation; return the seconds since it was started."""
        seconds = self._in_epoch()
        self.stepping, self._epoch = self.stepping + seconds, None
        return seconds

    def _in_epoch(self) -> float:
        return 0.0 if self._epoch is None else time.perf_counter() - self._epoch

    def total(self) -> dict[str, Any]:
        """Return the cost until now, of all processes, as JSON values.

        seconds: wall time. stepping: that of the epochs without validation. host_bytes, device_bytes: the largest
        memory of a process and of its tensors on the GPU; None where nobody says. device, threads: of this process.
        """
        peaks = {"host_bytes": host_peak(), "device_bytes": device_peak(self.device)}
        return {
            "seconds": time.perf_counter() - self._began,
            "stepping": self.stepping + self._in_epoch(),
            "images": self.images,
            **{key: max(filter(None, (peaks[key], self._before[key])), default=None) for key in PEAKS},
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
        }

    def go_on(self, saved: Mapping[str, Any]) -> None:
        """Add what earlier processes cost. saved: what `total` said at the resume point."""
        self._began -= saved["seconds"]
        self.stepping, self.images = saved["stepping"], saved["images"]
        self._before = {key: saved[key] for key in PEAKS}


def forget_peaks(device: torch.device) -> None:
    """Let the peaks begin anew: one process may train many cells."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        (SELF / "clear_refs").write_text("5")  # Linux: sets the peak to the present size
    except OSError:  # elsewhere, or where /proc may not be written: then the peak is that of the whole process
        return


def host_peak() -> int | None:
    """Return the largest resident memory of this process in bytes, without its workers; None where nobody says."""
    try:
        lines = (SELF / "status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(found[0]) if found else None


def device_peak(device: torch.device) -> int | None:
    """Return the largest memory of the tensors on a GPU in bytes; None on the processor."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor: as Linux states it, elsewhere what Python knows."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    stated = Path("/proc/cpuinfo")
    lines = stated.read_text().splitlines() if stated.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
