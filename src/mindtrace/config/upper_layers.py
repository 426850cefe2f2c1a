"""Room core: the layers above the INI: the environment, `--set`, a command's options.

Names and values go in, a layer of literal texts comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mindtrace.config.layers import Entry, Layer, Origin
from mindtrace.config.redact import shown


def _own_spelling(name: str, known: Iterable[str]) -> str:
    """The known name that is `name` but for case, or `name` itself."""
    folded = name.casefold()
    return next((own for own in known if own.casefold() == folded), name)


def from_environment(
    environ: Mapping[str, str], known: Mapping[str, Iterable[str]], base: Path
) -> Layer:
    """The layer of the variables `SECTION__KEY`, in any case, whose section is known.

    A variable of another section belongs to somebody else.

    Args:
        environ: the environment.
        known: section -> its keys, in their own spelling.
        base: the folder that relative paths start from.

    Returns:
        the layer, its values literal.
    """
    layer = Layer()
    for name in sorted(environ):
        head, separator, tail = name.partition("__")
        section = _own_spelling(head, known)
        if not separator or not tail or section not in known:
            continue
        key = _own_spelling(tail, known[section])
        origin = Origin(f"environment {name}", literal=True, base=base)
        first = layer.entries.get((section, key))
        if first is not None and first.text != environ[name]:
            message = f"[{section}] {key}: also given by {first.origin.file}; unset one"
            layer.fault(origin, message, (section, key))
            continue
        layer.put(section, key, Entry(environ[name], origin))
    return layer


def from_sets(sets: Sequence[str], known: Mapping[str, Iterable[str]], base: Path) -> Layer:
    """The layer of `section.key=value` arguments; of two for one key the later counts."""
    layer = Layer()
    for argument in sets:
        name, equals, value = argument.partition("=")
        head, dot, tail = (part.strip() for part in name.partition("."))
        origin = Origin(f"--set {shown(name.strip())}", literal=True, base=base)
        if not (equals and dot and head and tail):
            message = "write it as section.key=value, such as train.lr=0.01"
            layer.fault(origin, message, (None, None))
            continue
        section = _own_spelling(head, known)
        key = _own_spelling(tail, known.get(section, ()))
        layer.put(section, key, Entry(value.strip(), origin))
    return layer


def from_options(overrides: Mapping[str, str], base: Path) -> Layer:
    """The layer of a command's own options: `{"train.max_epochs": "3"}` is `--max-epochs`."""
    layer = Layer()
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        # The network's name is chosen by `--model`; a `--name` alone would say nothing.
        flag = section if key == "name" else key
        origin = Origin(f"--{flag.replace('_', '-').lower()}", literal=True, base=base)
        layer.put(section, key, Entry(value, origin))
    return layer
