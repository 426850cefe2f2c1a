"""The shapes of requests and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from mindtrace.registry.comparison import Comparison
from mindtrace.service.promotion import Promotion
from mindtrace.service.registry import VersionSummary

# A handwritten three of 8 x 8 pixels, from the digits data of scikit-learn (UCI).
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAASElEQVR42jXGQQ2AMBAAsJLszyScBCTMAg5w"
    "AE4WFCBhVnAwHCw44EVfJerodZFEOefjvWHrYwGtBxCj+VckueQ9h0lc8rP6AK7JEI+wZbC1AAAAAElFTkSu"
    "QmCC"
)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
MAX_IMAGES = 1024
EXAMPLE_INI = "[data]\nsource = digits\n\n[train]\nmax_epochs = 1\n"
_ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
Item = TypeVar("Item")


class Shape(BaseModel):
    """Base of all shapes."""

    # `model_name` is a word of ours; pydantic would keep the prefix for itself.
    model_config = ConfigDict(protected_namespaces=())


class Strict(Shape):
    """Refuses fields and types that it does not declare."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Page(Shape, Generic[Item]):
    """Some of them, in order."""

    items: list[Item]
    next_cursor: str | None = Field(description="send as `cursor` for the next page")


class Candidate(Shape):
    """One of the likeliest classes."""

    label: int = Field(description="index of the class")
    class_name: str
    confidence: float = Field(ge=0, le=1)


class Prediction(Shape):
    """What a model says of one image."""

    label: int = Field(description="index of the likeliest class")
    class_name: str
    confidence: float = Field(ge=0, le=1, description="its probability")
    probabilities: list[float] = Field(description="of every class, in class_names order")
    top_k: list[Candidate] = Field(description="likeliest first")
    model_name: str | None
    version: int | None
    input: str | None = Field(
        default=None, description="with show_input, the image as the network sees it: a PNG, base64"
    )


class Answer(Prediction):
    """The answer to a single image."""

    request_id: str


class ItemFault(Shape):
    """Why one image of several could not be read."""

    type: str
    message: str


class FailedItem(Shape):
    """The place of an image that could not be read."""

    error: ItemFault


class Answers(Shape):
    """The answer to `images`: one item for each, in their order."""

    items: list[Prediction | FailedItem]
    request_id: str


Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class OneImage(Strict):
    """One image."""

    image: Base64 = Field(min_length=1, description="a PNG, JPEG or WebP file in base64")
    top_k: int = Field(default=1, ge=1, description="how many of the likeliest classes to list")
    show_input: bool = Field(default=False, description="show each image as the network sees it")


class ManyImages(Strict):
    """Several images; one that cannot be read hurts only itself."""

    images: list[Base64] = Field(
        min_length=1, max_length=MAX_IMAGES, description="image files in base64"
    )
    top_k: int = Field(default=1, ge=1, description="how many of the likeliest classes to list")
    show_input: bool = Field(default=False, description="show each image as the network sees it")


@dataclass(frozen=True, kw_only=True)
class VersionItem(VersionSummary):
    """A registered version; the fields of `mindtrace registry list --json`."""

    schema_version: int
    input: Annotated[
        Mapping[str, Any] | None,
        Field(description="of one version: what its network takes, from pixels"),
    ] = None
    report_files: Annotated[
        Sequence[str] | None,
        Field(description="of one version: what this server has of its training's report"),
    ] = None


class ModelItem(Shape):
    """A registered model."""

    schema_version: int
    model_name: str
    champion: int | None = Field(description="version that the alias champion names")
    latest: int | None = Field(description="newest version")


class HistoryItem(Shape):
    """A line of the history of champions."""

    schema_version: int
    revision: int
    model_name: str
    at: str
    by: str
    action: Literal["promote", "rollback", "refuse"]
    origin: int | None = Field(alias="from", description="champion before")
    to: int = Field(description="version it is about")
    reason: str | None
    verdict: str | None
    forced: bool = Field(description="whatever the gate said")
    gone: bool = Field(description="the version it is about exists no more, so it does not count")


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# 2.0 is an integer to JSON Schema, and to the clients that know one kind of number.
Whole = Annotated[int, BeforeValidator(_whole)]


_REASON_TO_FORCE: JsonDict = {
    "if": {"required": ["force"], "properties": {"force": {"const": True}}},
    "then": {"required": ["reason"], "properties": {"reason": {"type": "string", "minLength": 1}}},
}


class PromoteRequest(Strict):
    """Who shall be champion; to force it wants a reason."""

    model_config = ConfigDict(json_schema_extra=_REASON_TO_FORCE)
    version: Whole = Field(ge=1, le=1 << 31)
    margin: float | None = Field(
        default=None, ge=0, le=1, description="how much worse is as good; null: the server's"
    )
    dry_run: bool = False
    force: bool = Field(default=False, description="promote whatever the gate says")
    reason: str | None = Field(default=None, max_length=1000, pattern=_ONE_LINE)


class RollbackRequest(Strict):
    """Why the champion before shall be back."""

    reason: str | None = Field(default=None, max_length=1000, pattern=_ONE_LINE)


@dataclass(frozen=True, kw_only=True)
class ComparisonItem(Comparison):
    """Version b beside version a; the fields of `mindtrace registry compare --json`."""

    schema_version: int
    verdict: Literal["PROMOTE", "HOLD", "REJECT"]


@dataclass(frozen=True, kw_only=True)
class PromotionItem(Promotion):
    """What became of a request; the fields of `mindtrace registry promote --json`."""

    schema_version: int
    comparison: ComparisonItem | None


class Progress(Shape):
    """How far a training is."""

    epoch: int | None
    max_epochs: int | None
    val_acc: float | None


class JobPromotion(Shape):
    """What `[jobs] promote` made of a new version."""

    promoted: bool = Field(description="whether it is champion")
    verdict: str | None = Field(description="the gate's")
    message: str | None


class Job(Shape):
    """A retraining; the fields of `mindtrace jobs show --json`."""

    schema_version: int
    job_id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    attempts: int
    cancelling: bool = Field(description="whether its end was asked for")
    progress: Progress
    model_name: str | None
    version: int | None = Field(description="what it registered")
    reused: bool = Field(description="whether that version was there before")
    promotion: JobPromotion | None
    error: ItemFault | None


class Alive(Shape):
    """The process answers."""

    status: Literal["live", "ready"]
    model_name: str | None = None
    version: int | None = None
    registry: Literal["away"] | None = Field(
        default=None, description="where it does not answer: the last version it named is served"
    )


_SECONDS = {"type": "integer", "minimum": 1}
_AFTER = {"description": "seconds after which to try again", "required": True, "schema": _SECONDS}


class ProblemDocument(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    request_id: str
    hint: str | None = None
    errors: list[dict[str, Any]] | None = None


COMPONENT = "#/components/schemas/{model}"


def reference(shape: type[BaseModel]) -> dict[str, str]:
    """Where the application's document has a shape that no route declares to FastAPI."""
    return {"$ref": COMPONENT.format(model=shape.__name__)}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": reference(ProblemDocument)}},
            **({"headers": {"Retry-After": _AFTER}} if status in (429, 503) else {}),
        }
        for status in statuses
    }


_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": _FILE}}
INFERENCE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [OneImage.model_json_schema(), ManyImages.model_json_schema()]},
            "examples": {
                "one image": {"value": {"image": EXAMPLE_IMAGE, "top_k": 3}},
                "several images": {"value": {"images": [EXAMPLE_IMAGE, EXAMPLE_IMAGE]}},
            },
        },
        **{kind: {"schema": _FILE} for kind in IMAGE_TYPES},
        "multipart/form-data": {"schema": _FORM},
    },
}
