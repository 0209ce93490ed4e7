"""Which benchmarks pretrained weights have seen: a long tail is none if the rare classes were seen before in full.

ImageNet's sets of 12, 21 and 22 thousand classes contain its 1,000 classes, and so does what DINOv2 and DINOv3 were
trained on, lvd142m (Oquab et al., arXiv:2304.07193, table 15) and lvd1689m. Tiny ImageNet is a part of ImageNet.
"""

import re
from collections.abc import Mapping

IMAGENET = frozenset(
    {"imagenet", "imagenet1k", "imagenet21k", "imagenet22k", "ilsvrc", "tinyimagenet"}
    | {"in1k", "in12k", "in21k", "in22k", "lvd142m", "lvd1689m"}
)
# source of images -> names of training sets that hold images of it
HOLDING = {
    "imagenet2012": IMAGENET,
    "tiny_imagenet": IMAGENET,
    "cifar10": frozenset({"cifar10"}),
    "cifar100": frozenset({"cifar100"}),
    "inaturalist2018": frozenset({"inat2018", "inat18", "inaturalist2018"}),
    "places365": frozenset({"places", "places365"}),
    "mscoco_glt": frozenset({"coco", "mscoco"}),
}


def warn_of_seen(source: str, seen: Mapping[str, str | None]) -> list[str]:
    """Return a sentence for each training set that holds images of the benchmark, with the runs that start from it.

    source: a module of ltpipe.data.sources. seen: run -> what its weights have been trained on; None: random weights.
    """
    runs: dict[str, list[str]] = {}
    for run, text in seen.items():
        for name in sorted(_holding(_words(text or ""), HOLDING.get(source, frozenset()))):
            runs.setdefault(name, []).append(run)
    return [
        f"{', '.join(names)}: pretrained on {name}, which holds images of this benchmark ({source}): the rare classes "
        "were seen before, and test images may have been. Compare these numbers with no run that starts from random "
        "weights"
        for name, names in runs.items()
    ]


def _holding(words: set[str], sets: frozenset[str]) -> set[str]:
    """Return the words that name one of the sets; ImageNet's also with an ending: in1k-ft, imagenet-1k-v2."""
    beginnings = tuple(sets) if sets is IMAGENET else ()
    return {word for word in words if word in sets or word.startswith(beginnings)}


def _words(text: str) -> set[str]:
    """Return the names in a user's words: ImageNet-1k, imagenet_1k and imagenet1k are one."""
    return {re.sub(r"[^a-z0-9]", "", part) for part in re.split(r"[\s,;+/()]+", text.lower())}
