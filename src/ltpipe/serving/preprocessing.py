"""Preprocessing: how a picture becomes the square that an exported model takes. The model's metadata state it.

It is what the stage split does when it packs images, so that a model sees in use what it saw in its tests.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ltpipe.config.spec import Spec, parse
from ltpipe.storage.table import Table


class Preprocessing(Spec):
    """Steps from an upright RGB picture to the model's input; the constants say what no reader may do otherwise."""

    size: int = Field(gt=0, description="height and width of the model's input, in pixels (source.size)")
    network: int = Field(gt=0, description="the graph itself cuts out the centre of this size (model.image)")
    resize: Literal["shorter side"] = Field("shorter side", description="the shorter side becomes `size`")
    interpolation: Literal["bilinear, antialiased"] = Field("bilinear, antialiased", description="of resizing")
    crop: Literal["centre"] = Field("centre", description="the square that is kept after resizing")
    jpeg: Literal["shrunk", "whole"] = Field(
        description="shrunk: the decoder of a far too large JPEG may halve it first (ltpipe.data.decode); whole: never"
    )


def describe(manifest: Table, size: int, network: int) -> Preprocessing:
    """Return how the manifest's images were packed. size: of the packed images; network: model.image."""
    # ltpipe.data.originals writes this attribute where training reads whole pictures; they are packed of all pixels
    return Preprocessing(size=size, network=network, jpeg="whole" if "pictures" in manifest.attrs else "shrunk")


def read_preprocessing(facts: Mapping[str, Any]) -> Preprocessing | None:
    """Return what a model's facts state, None if it was exported before they did.

    Raises Refused if they state something that this version does not know.
    """
    if "preprocessing" not in facts:
        return None
    return parse(Preprocessing, facts["preprocessing"], "the model's preprocessing is not known to this version")


def assume(size: int) -> Preprocessing:
    """Return how images of most benchmarks are packed, for a model that does not say. size: of the model's input."""
    return Preprocessing(size=size, network=size, jpeg="shrunk")
