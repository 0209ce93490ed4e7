"""The files of a training that goes on after a stop. Importable without torch.

resume.pt: the newest point. resume.previous.pt: the one before it. finished.pt: the whole result of a training, until
its checkpoint is on disk.
"""

from pathlib import Path

RESUME, FINISHED = "resume.pt", "finished.pt"


def previous(path: Path) -> Path:
    """Return where the resume point before the newest one lies; path: of the newest one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def discard(folder: Path) -> None:
    """Delete the points of a cell. Only when its results are on disk: before that, a kill would lose the training."""
    for path in (folder / FINISHED, folder / RESUME, previous(folder / RESUME)):
        path.unlink(missing_ok=True)
    remove_unfinished(folder)


def remove_unfinished(folder: Path) -> None:
    """Delete what a writer of points left that was killed while it wrote."""
    for path in folder.glob(".*.pt.*.tmp"):
        path.unlink(missing_ok=True)
