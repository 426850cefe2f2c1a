"""Floor 9: which packages are there, against what mindtrace asks for.

In: nothing. Out: a `Package` for each, from the metadata that pip left: none of them is
imported, which would take seconds.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

# Whose versions decide most, in this order before all others.
FIRST = (
    *("mindtrace", "torch", "torchvision", "pytorch-lightning", "mlflow", "onnxruntime"),
    *("numpy", "pillow", "fastapi", "uvicorn", "dbos"),
)


@dataclass(frozen=True)
class Package:
    """One that mindtrace uses.

    Attributes:
        name: as pip knows it.
        version: None if it is not installed.
        fault: why it does not do; None if it does.
        remedy: what to type then.
    """

    name: str
    version: str | None
    fault: str | None = None
    remedy: str | None = None


def packages() -> Iterator[Package]:
    """What mindtrace needs, and whether the pair of torch and torchvision fits."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires("mindtrace") or ()]
    needed = {one.name: one for one in wanted if one.marker is None or one.marker.evaluate()}
    for name in sorted({*FIRST, *needed}, key=_rank):
        found, requirement = _version(name), needed.get(name)
        remedy = f"pip install '{requirement or name}'"
        if requirement is None or (found and requirement.specifier.contains(found, True)):
            if found is not None:
                yield Package(name, found)
        elif found is None:
            yield Package(name, None, "not installed", remedy)
        else:
            fault = f"{found}, mindtrace needs {requirement.specifier}"
            yield Package(name, found, fault, remedy)
    yield from _pair()


def _pair() -> Iterator[Package]:
    """torch and torchvision are built for each other; any other pair breaks at import."""
    from packaging.requirements import Requirement

    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return
    for text in importlib.metadata.requires("torchvision") or ():
        wanted = Requirement(text)
        if wanted.name == "torch" and not wanted.specifier.contains(torch.partition("+")[0], True):
            fault = f"torchvision {vision} was built for torch {wanted.specifier}, not {torch}"
            remedy = "pip install -U torch torchvision"
            yield Package("torch and torchvision", None, fault, remedy)


def _rank(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
