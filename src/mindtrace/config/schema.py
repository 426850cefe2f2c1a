"""How a key of a section is declared, read from INI text and described in words."""

import os
import re
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from mindtrace.config.urls import parse_authority
from mindtrace.errors import meant


@dataclass(frozen=True)
class Kind:
    """Values that pydantic does not know: in words, text -> value, and back."""

    words: str
    parse: Callable[[str], Any]  # None where the text is none of these; ValueError says more
    render: Callable[[Any], str] = str
    anchor: Callable[[str, Path], str] | None = None  # makes paths in the text absolute


@dataclass(frozen=True)
class Key:
    """What a key has beside a pydantic field: it is the field's `json_schema_extra`."""

    synonyms: Sequence[str]
    request: bool  # whether POST /retrain may set it
    none: tuple[str, ...]  # how None is written, and what else is read as None
    kind: Kind | None
    words: str

    def __call__(self, schema: dict[str, Any]) -> None:
        """Leave the JSON schema as it is."""


def key(
    default: Any,
    doc: str,
    synonyms: str = "",
    *,
    request: bool = False,
    none: tuple[str, ...] = (),
    kind: Kind | None = None,
    words: str = "",
    **limits: Any,
) -> Any:
    """Declare one key; `limits` are pydantic's: ge, le, gt, lt, pattern, repr."""
    extra = Key(synonyms.split(), request, none, kind, words or (kind.words if kind else ""))
    return Field(default, description=doc, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """A section of the INI; keys are fields in lower case."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )
    synonyms: ClassVar[str] = ""

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Read what the INI's dialect writes in its own way; pydantic reads the rest."""
        declared = cls.model_fields[str(info.field_name)]
        own = key_of(declared)
        if value is None or (isinstance(value, str) and value in own.none):
            return None
        if own.kind is not None:
            read = own.kind.parse(value if isinstance(value, str) else own.kind.render(value))
            if read is None:
                raise ValueError(f"must be {own.words}")
            return read
        if isinstance(value, str) and _type(declared) is int and not _WHOLE.fullmatch(value):
            raise ValueError(f"must be {_words(declared)}")  # pydantic would take 64.0
        return value


def key_of(declared: FieldInfo) -> Key:
    """What `key()` said of a field."""
    own = declared.json_schema_extra
    assert isinstance(own, Key)
    return own


def _type(declared: FieldInfo) -> Any:
    """The type of a key without None."""
    annotation = declared.annotation
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    return next(part for part in get_args(annotation) if part is not types.NoneType)


def _limits(declared: FieldInfo) -> str:
    limits: dict[str, Any] = {}
    for limit in declared.metadata:
        limits |= asdict(limit)
    if "le" in limits:
        return f"between {limits['ge']} and {limits['le']}"
    least = f"above {limits['gt']}" if "gt" in limits else f"{limits['ge']} or more"
    return f"{least} and below {limits['lt']}" if "lt" in limits else least


def _words(declared: FieldInfo) -> str:
    """What a key takes beside None: `a whole number, 1 or more`."""
    own, kind = key_of(declared), _type(declared)
    if own.words:
        return own.words
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is bool:
        return "true or false"
    limits = _limits(declared)
    if kind is int:
        return f"a whole number, {limits}"
    return f"a number {limits}" if limits == "above 0" else f"a number, {limits}"


def allowed(declared: FieldInfo) -> str:
    """What a key takes, in words: `none, or a whole number, 1 or more`."""
    none = key_of(declared).none
    return f"{none[0] or 'blank'}, or {_words(declared)}" if none else _words(declared)


def ini_text(declared: FieldInfo, value: Any) -> str:
    """A value as INI text that is read back to the same value."""
    own = key_of(declared)
    if value is None:
        return own.none[0]
    if own.kind is not None:
        return own.kind.render(value)
    return str(value).lower() if isinstance(value, bool) else _number(value)


def _number(value: Any) -> str:
    """A number as short as it can be read back, `30` for 30.0; other values as they are."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def reasons(model: type[Section], error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each field that pydantic refused, and why in our words: `must be 1 or more`."""
    for found in error.errors(include_url=False):
        name = str(found["loc"][0])
        declared = model.model_fields[name]
        match found["type"]:
            case "missing":  # its text has a fault of its own
                continue
            case "value_error":
                yield name, str(found["ctx"]["error"])
            case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
                yield name, f"must be {_limits(declared)}"
            case "literal_error":
                suggestion = meant(str(found["input"]).lower(), get_args(_type(declared)))
                yield name, f"must be {_words(declared)}{suggestion}"
            case _:
                yield name, f"must be {_words(declared)}"


def _require_one_line(text: str) -> None:
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise ValueError("must be one line without control characters")


def _anchored(text: str, folder: Path) -> str:
    """A path made absolute: `~` expanded, else below `folder` where relative."""
    _require_one_line(text)
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

    def parse(text: str) -> str | None:
        scheme, separator, rest = text.partition("://")
        if not separator or not rest or scheme.lower().partition("+")[0] not in schemes:
            return None
        _require_one_line(text)
        if not scheme.lower().startswith("sqlite"):
            if " " in text:
                raise ValueError("must not hold a blank; write it as %20")
            return text
        # A database in memory would not be the same one in two processes.
        file = rest.removeprefix("/").partition("?")[0]
        if not rest.startswith("/") or file in ("", ":memory:"):
            raise ValueError("must name a file: sqlite:///FILE")
        return text

    def anchor(text: str, folder: Path) -> str:
        match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(.*)", text, re.DOTALL)
        if match is None or match[2] == ":memory:":
            return text
        return f"{match[1]}{_anchored(match[2], folder)}{match[3]}"

    names = [f"{scheme}://" for scheme in schemes]
    words = f"a URL that begins with {', '.join(names[:-1])} or {names[-1]}"
    return Kind(words, parse, str, anchor)


_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_WHOLE = re.compile(r"[+-]?[0-9](_?[0-9]){0,17}")


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(name for name in re.split(r"[\s,]+", text) if name)
    for name in names:
        if parse_authority(name) is None:
            raise ValueError(f"'{name}' is no host name; must be {HOSTS.words}, without * or /")
    return names


def _size(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,15})\s*([a-z]*)", text.lower())
    if match is None or match[2] not in _UNITS:
        return None
    value = int(match[1]) * _UNITS[match[2]]
    if value < 1024:
        raise ValueError("must be 1 KiB or more")
    return value


def _size_text(value: int) -> str:
    for name, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value % unit == 0:
            return f"{value // unit} {name}"
    return str(value)


def _count_or_fraction(text: str) -> int | float | None:
    try:
        value = int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError:
        return None
    return value if (value >= 1 if isinstance(value, int) else 0 < value < 1) else None


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return text


PATH = path("a path")
REGEX = Kind("a regular expression", _regex)
SIZE = Kind("a size such as 262144, 256 KiB or 16 MiB", _size, _size_text)
COUNT_OR_FRACTION = Kind(
    "a whole number of images, or a fraction above 0 and below 1", _count_or_fraction, _number
)
HOSTS = Kind(
    "names such as example.org or example.org:8000, separated by commas", _hosts, ", ".join
)
