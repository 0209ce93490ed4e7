"""Datasets whose terms allow no download by a program: their user's own folder, seen below the source's raw folder.

The folder comes from the option `root`, from an environment variable, or is mounted at the raw folder itself. Its
entries are linked into the raw folder, so that index and manifest name no folder of this machine, and so that later
stages find the images where `fetch` found them.
"""

import os
import uuid
from pathlib import Path
from typing import NamedTuple

from ltpipe.config.spec import Refused


class Dataset(NamedTuple):
    """What the user must bring.

    entries: names that the folder must hold; optional: names that are used where it holds them.
    obtain: one line each on what, where from, how large, under which terms, in which layout.
    """

    source: str
    variable: str
    entries: tuple[str, ...]
    obtain: str
    optional: tuple[str, ...] = ()

    def refuse(self, problem: str) -> Refused:
        """The error that says what to get and where to put it."""
        advice = (
            f"option root of the source, in conf/local: <benchmark>: {{source: {{options: {{root: /path}}}}}}"
            f"\n    or environment variable {self.variable}=/path"
            f"\n    or, in a container, -v /path:/app/data/01_raw/{self.source}"
        )
        lines = "\n  ".join(line.strip() for line in self.obtain.strip().splitlines())
        return Refused(f"source {self.source}: {problem}\n  {lines}\n  then name its folder by\n    {advice}")


def place(dataset: Dataset, root: str, raw: Path) -> None:
    """See that the dataset's entries are below `raw`: links to the user's folder, or mounted there.

    root: the user's folder; "": that of the environment variable; none at all: `raw` itself must hold the entries.
    """
    root = root or os.environ.get(dataset.variable, "")
    folder = Path(root).expanduser().resolve() if root else raw
    absent = [name for name in dataset.entries if not (folder / name).exists()]
    if absent:
        raise dataset.refuse(f"no {' and no '.join(absent)} in {folder}")
    if root:
        for name in (*dataset.entries, *dataset.optional):
            if (folder / name).exists():
                link(folder / name, raw / name)


def link(target: Path, path: Path) -> None:
    """A symbolic link at `path` to `target`; an older link is replaced, anything else is left and refused."""
    try:
        if path.exists() and path.samefile(target):
            return
        if path.exists() and not path.is_symlink():
            raise Refused(f"{path} is there already, and {target} is wanted in its place: move one of them away")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        temporary.symlink_to(target)
        temporary.replace(path)
    except OSError as error:
        raise Refused(f"cannot link {path} to {target}: {error}") from None
