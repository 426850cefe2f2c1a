"""Rules between keys: values that do not go together, and the recipe that a source starts from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import get_args

from mindtrace.config.ini import Place
from mindtrace.config.networks import OWN_NETWORKS, PHOTO_NETWORK, unknown_network
from mindtrace.config.sections import BLANK, PHOTO_SOURCES, Source


def conflicts(texts: Mapping[Place, str]) -> Iterator[tuple[Place, str]]:
    """Keys whose values are valid, but not together, and why."""
    source, folder = texts.get(("data", "source")), texts.get(("data", "dir"))
    if source in PHOTO_SOURCES and folder in BLANK:
        yield ("data", "source"), f"needs the {source} too; add dir = PATH to [data]"
    elif (
        source in get_args(Source) and source not in PHOTO_SOURCES and folder not in (None, *BLANK)
    ):
        reason = f"is for source = folder or table, and source is {source}; change or remove one"
        yield ("data", "dir"), reason
    network = texts.get(("model", "name"))
    if network in OWN_NETWORKS and texts.get(("model", "weights")) == "default":
        yield (
            ("model", "weights"),
            f"there are none for {network}; use none, a path, or another name",
        )
    if network is not None and (unknown := unknown_network(network)):
        yield ("model", "name"), unknown
    moving = [place for place in _MOVING if texts.get(place, "none") not in _STILL]
    if moving and texts.get(("model", "freeze"), "").lower() in ("true", "1", "yes", "on"):
        section, key_ = moving[0]
        reason = f"trains on features that are computed once, without [{section}] {key_}"
        yield ("model", "freeze"), f"{reason}; remove one of the two"


# What changes the images that a network sees from epoch to epoch, and what changes nothing.
_MOVING = (("data", "augment"), ("train", "mixup"))
_STILL = ("none", "", "0", "0.0")


def recipe(texts: Mapping[Place, str], given: Collection[Place]) -> dict[Place, str]:
    """`recipe photo`: what a folder or table starts from, where the user did not say otherwise."""
    scratch = texts.get(("model", "weights")) == "none"
    named = texts.get(("model", "name")) if ("model", "name") in given else None
    if texts.get(("data", "source")) not in PHOTO_SOURCES or named in OWN_NETWORKS:
        return {}
    if scratch:
        found = {("model", "name"): "cnn"}
    else:
        found = {("model", "name"): PHOTO_NETWORK, ("model", "weights"): "auto"}
        if all(texts.get(place, "none") in _STILL for place in _MOVING):
            found |= {("model", "freeze"): "true", ("data", "augment"): "none"}
    return {place: text for place, text in found.items() if place not in given}
