"""How a key of a section is declared, read from INI text and described in words."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from mindtrace.config.types import WHOLE, Kind, number_text
from mindtrace.errors import nearest


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
    extra = Key(synonyms.split(), request, none, kind, words)
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
            return own.kind.parse(value if isinstance(value, str) else own.kind.render(value))
        if isinstance(value, str) and _type(declared) is int and not WHOLE.fullmatch(value):
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
    if own.kind is not None:
        return own.kind.words
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is bool:
        return "true or false"
    if kind is int:
        return f"a whole number, {_limits(declared)}"
    limits = _limits(declared)
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
    if isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, float) else str(value)


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
                close = nearest(str(found["input"]).lower(), get_args(_type(declared)))
                meant = f", did you mean '{close}'?" if close else ""
                yield name, f"must be {_words(declared)}{meant}"
            case _:
                yield name, f"must be {_words(declared)}"
