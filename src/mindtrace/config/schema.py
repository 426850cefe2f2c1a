"""How a key of a section is declared, read from INI text and described in words."""

import os
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic.types import ByteSize

from mindtrace.config.urls import parse_authority
from mindtrace.errors import meant


@dataclass(frozen=True)
class Kind:
    """Values that pydantic does not know: in words, text -> value, and back."""

    words: str
    parse: Callable[[str], Any]  # None where the text is none of these
    render: Callable[[Any], str] = str
    anchor: Callable[[str, Path], str] | None = None  # makes paths in the text absolute


class Key(NamedTuple):
    """What a key has beside a pydantic field: it is the field's `json_schema_extra`."""

    request: bool  # whether POST /retrain may set it
    none: tuple[str, ...]  # how None is written, and what else is read as None
    kind: Kind | None
    words: str


def key(
    default: Any,
    doc: str,
    *,
    request: bool = False,
    none: tuple[str, ...] = (),
    kind: Kind | None = None,
    words: str = "",
    **limits: Any,
) -> Any:
    """Declare one key; `limits` are pydantic's: ge, le, gt, lt, pattern, repr."""
    extra: Any = Key(request, none, kind, words or (kind.words if kind else ""))
    return Field(default, description=doc, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """A section of the INI; keys are fields in lower case."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Read what the INI's dialect writes in its own way; pydantic reads the rest."""
        declared = cls.model_fields[str(info.field_name)]
        own = key_of(declared)
        if value is None or (isinstance(value, str) and value in own.none):
            return None
        if own.kind is not None:
            value = own.kind.parse(value if isinstance(value, str) else own.kind.render(value))
        elif isinstance(value, str) and _type(declared) is int and len(value) > 18:
            value = None  # nothing that counts takes more than 64 bits
        if value is None:
            raise ValueError
        return value


def key_of(declared: FieldInfo) -> Key:
    """What `key()` said of a field."""
    own: Any = declared.json_schema_extra
    assert isinstance(own, Key)
    return own


def _type(declared: FieldInfo) -> Any:
    """The type of a key without None."""
    annotation = declared.annotation
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    return next(part for part in get_args(annotation) if part is not types.NoneType)


_UNITS = ((20, " MiB"), (10, " KiB"), (0, ""))  # powers of two
_LIMITS = {"ge": "{} or more", "gt": "above {}", "le": "{} or less", "lt": "below {}"}


def _limits(declared: FieldInfo) -> str:
    limits = [item for limit in declared.metadata for item in asdict(limit).items()]
    return " and ".join(_LIMITS[side].format(end) for side, end in limits)


def allowed(declared: FieldInfo) -> str:
    """What a key takes, in words: `none, or a whole number, 1 or more`."""
    own, kind = key_of(declared), _type(declared)
    words = own.words
    if get_origin(kind) is Literal:
        words = f"one of {', '.join(get_args(kind))}"
    elif kind is bool:
        words = "true or false"
    elif not words:
        words = f"{'a whole number' if kind is int else 'a number'}, {_limits(declared)}"
    return f"{own.none[0] or 'blank'}, or {words}" if own.none else words


def ini_text(declared: FieldInfo, value: Any) -> str:
    """A value as INI text that is read back to the same value."""
    own = key_of(declared)
    if value is None:
        return own.none[0]
    if own.kind is not None:
        return own.kind.render(value)
    if declared.annotation is ByteSize:
        power, unit = next(one for one in _UNITS if value % 2 ** one[0] == 0)
        return f"{value >> power}{unit}"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return str(value).lower() if isinstance(value, bool) else str(value)


def reasons(model: type[Section], error: ValidationError) -> dict[str, str]:
    """Each field that pydantic refused, and why: `must be 1 or more`."""
    found: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        name = str(fault["loc"][0])
        if fault["type"] != "missing":  # its text has a fault of its own
            declared = model.model_fields[name]
            kind = _type(declared)
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            suggestion = meant(str(fault["input"]).lower(), choices)
            in_range = _limits(declared) if "_than" in fault["type"] else ""
            found[name] = f"must be {in_range or allowed(declared)}{suggestion}"
    return found


_CONTROL = r"\x00-\x1f\x7f"


def _anchored(text: str, folder: Path) -> str:
    """A path made absolute: `~` expanded, else below `folder` where relative."""
    if re.search(f"[{_CONTROL}]", text):
        raise ValueError("must be a path of one line")
    text = os.path.expanduser(text)  # noqa: PTH111 - Path would raise RuntimeError
    if text.startswith("~"):
        raise ValueError("that home folder is not known; set HOME or write the whole path")
    return str(folder / text) if text else text


def path(words: str, type_: Callable[[str], Any] = Path, names: Sequence[str] = ()) -> Kind:
    """A path, which becomes absolute, or one of `names`."""

    def anchor(text: str, folder: Path) -> str:
        return text if text in names else _anchored(text, folder)

    return Kind(words, lambda text: type_(text) if text else None, str, anchor)


def url(*schemes: str) -> Kind:
    """A URL of one of `schemes`; a dialect such as `postgresql+psycopg2` is one of them."""
    forms = {scheme: rf"{scheme}(\+\w+)?://[^\s{_CONTROL}]+" for scheme in schemes}
    if "sqlite" in forms:
        # A database in memory would not be the same one in two processes.
        forms["sqlite"] = rf"sqlite(\+\w+)?:///(?!/?:memory:)[^?{_CONTROL}][^{_CONTROL}]*"
    known = re.compile("|".join(forms.values()), re.IGNORECASE)

    def anchor(text: str, folder: Path) -> str:
        match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(.*)", text, re.DOTALL)
        if match is None or match[2] == ":memory:":
            return text
        return f"{match[1]}{_anchored(match[2], folder)}{match[3]}"

    names = ["sqlite:///FILE" if name == "sqlite" else f"{name}://" for name in schemes]
    words = f"a URL that begins with {', '.join(names[:-1])} or {names[-1]}"
    return Kind(words, lambda text: text if known.fullmatch(text) else None, str, anchor)


def _hosts(text: str) -> tuple[str, ...] | None:
    names = tuple(name for name in re.split(r"[\s,]+", text) if name)
    return names if all(map(parse_authority, names)) else None


def _regex(text: str) -> str | None:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return None
    return text


PATH = path("a path")
REGEX = Kind("a regular expression", _regex)
HOSTS = Kind(
    "names such as example.org or example.org:8000, separated by commas, without * or /",
    _hosts,
    ", ".join,
)
