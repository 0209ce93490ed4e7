"""Datasets that a program may not download: use the user's own copy, through links in the source's raw folder.

The user names the folder by the option `root` or by an environment variable, or mounts it at the raw folder itself.
Its entries are linked into the raw folder. Thus index and manifest hold no path of this machine, and later stages find
the images where `fetch` found them.
"""

import os
import uuid
from pathlib import Path
from typing import NamedTuple

from ltpipe.config.spec import Refused


class Dataset(NamedTuple):
    """What the user has to provide.

    variable: the environment variable that may name the folder.
    entries: names that the folder must hold; optional: names that are linked if the folder holds them.
    obtain: what to get, from where, how large, under which terms, in which layout; one line each.
    """

    source: str
    variable: str
    entries: tuple[str, ...]
    obtain: str
    optional: tuple[str, ...] = ()

    def refusal(self, problem: str) -> Refused:
        """Return the error of `problem`, with what to get and where to put it."""
        advice = (
            f"option root of the source, in conf/local: <benchmark>: {{source: {{options: {{root: /path}}}}}}"
            f"\n    or environment variable {self.variable}=/path"
            f"\n    or, in a container, -v /path:/app/data/01_raw/{self.source}"
        )
        lines = "\n  ".join(line.strip() for line in self.obtain.strip().splitlines())
        return Refused(f"source {self.source}: {problem}\n  {lines}\n  then name its folder by\n    {advice}")


def link_dataset(dataset: Dataset, root: str, raw: Path) -> None:
    """Link the dataset's entries from the user's folder into `raw`. Raises Refused if a required entry is missing.

    root: the user's folder; if "", the environment variable names it; if that is empty too, `raw` itself must hold the
    entries (a mounted folder), and nothing is linked.
    """
    root = root or os.environ.get(dataset.variable, "")
    folder = Path(root).expanduser().resolve() if root else raw
    missing = [name for name in dataset.entries if not (folder / name).exists()]
    if missing:
        raise dataset.refusal(f"no {' and no '.join(missing)} in {folder}")
    if root:
        for name in (*dataset.entries, *dataset.optional):
            if (folder / name).exists():
                set_link(folder / name, raw / name)


def set_link(target: Path, path: Path) -> None:
    """Make `path` a symbolic link to `target`; replace an older link.

    Raises Refused if `path` is a file or a folder, which is not touched, or if the link cannot be written.
    """
    try:
        if path.exists() and path.samefile(target):
            return
        if path.exists() and not path.is_symlink():
            raise Refused(
                f"{path} exists and is not a link; a link to {target} has to take its place: move {path} away"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        # link under a temporary name, then rename: another process never sees the path without a link
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        temporary.symlink_to(target)
        temporary.replace(path)
    except OSError as error:
        raise Refused(f"cannot link {path} to {target}: {error}") from None
