"""Two versions image by image, from their stored predictions, and the verdict of the gate."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import DATA_FILE, MODEL_FILE, PREDICTIONS_FILE
from mindtrace.bundle.model_config import ModelConfig
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.config.urls import file_path
from mindtrace.errors import BundleError, StoreError, UsageError
from mindtrace.registry.gate import (
    Answers,
    ClassChange,
    Rule,
    decide,
    mcnemar_p,
    minimum_detectable,
)

if TYPE_CHECKING:
    from mindtrace.registry.reader import Reader
    from mindtrace.registry.reference import Located

# Folder of a run with the predictions that `registry evaluate` kept.
EVALUATIONS = "evaluations"

# A note on a version that was made before training images were kept.
UNKNOWN_TRAINING = "{} keeps no digests of its training images: only its own test set counts"


@dataclass(frozen=True, eq=False)
class Side:
    """A version's answers to its test set and others, in the order of (image digest, label)."""

    name: str  # NAME/VERSION, or the bundle's folder
    test_digest: str  # of its own test set
    class_names: tuple[str, ...]
    ledger: TestPredictions

    @property
    def answers(self) -> NDArray[np.int64]:
        """The likeliest class of each image, (images,)."""
        return np.asarray(self.ledger.probabilities.argmax(axis=1), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is the true class, (images,)."""
        return np.asarray(self.answers == self.ledger.labels)

    @property
    def trained_on(self) -> frozenset[bytes] | None:
        """The digests of its training images; None of a version made before they were kept."""
        train = self.ledger.train_digests
        return None if train is None else frozenset(row.tobytes() for row in train)

    def digest(self, row: int) -> str:
        """The digest of one image, hexadecimal."""
        return bytes(self.ledger.digests[row]).hex()


@dataclass(frozen=True)
class Comparison:
    """Version b compared with version a on the test images that both may be judged on."""

    a: str
    b: str
    test_digest: str  # of these images
    n: int
    acc_a: float
    acc_b: float
    diff: float
    ci: tuple[float, float]  # 95 % interval of score_b - score_a
    mcnemar_p: float
    wrong_to_right: int  # images that only b gets right
    right_to_wrong: int
    per_class: tuple[ClassChange, ...]
    minimum_detectable: float
    verdict: str  # of the gate, b as challenger of a
    reasons: tuple[str, ...]
    margin: float
    metric: str  # of the scores and the interval
    score_a: float
    score_b: float
    left_out: int  # images that both answered and one was trained on
    notes: tuple[str, ...]  # which test images these are


def read_sides(reader: Reader | None, a: Located, b: Located) -> tuple[Side, Side]:
    """Both versions' predictions, with those that `evaluate` kept on the other's test set."""
    first, second = read_side(a), read_side(b)
    if first.test_digest == second.test_digest or reader is None:
        return first, second
    return (
        _with_evaluation(reader, a, first, second.test_digest),
        _with_evaluation(reader, b, second, first.test_digest),
    )


def read_side(located: Located) -> Side:
    """The predictions of a bundle, every byte of the bundle checked."""
    row = located.row
    name = str(located.folder) if row is None else f"{row.name}/{row.version}"
    files = manifest.check(located.folder, located.digest)
    try:
        card = ModelConfig.from_json(files[MODEL_FILE].decode())
        ledger = TestPredictions.parse(files[PREDICTIONS_FILE])
        test_digest = str(json.loads(files[DATA_FILE])["test_digest"])
    except KeyError as error:
        raise BundleError(name, f"{error} is missing, so it cannot be compared") from error
    except (ValueError, TypeError) as error:
        raise BundleError(name, str(error)) from error
    n, classes = len(ledger.labels), len(card.class_names)
    if n == 0 or ledger.digests.shape != (n, 32) or ledger.probabilities.shape != (n, classes):
        raise BundleError(name, "its predictions do not fit its classes")
    return Side(name, test_digest, card.class_names, ordered(ledger))


def ordered(ledger: TestPredictions) -> TestPredictions:
    """Sorted by (digest, label); equal images have equal answers, so their order is no matter."""
    words = np.ascontiguousarray(ledger.digests).view(">u8")
    return ledger.rows(
        np.lexsort((ledger.labels, *(words[:, column] for column in range(3, -1, -1))))
    )


def judged(a: Side, b: Side) -> tuple[Side, Side, int]:
    """Both on the test images of both that neither was trained on, in order; how many one was."""
    if a.class_names != b.class_names:
        raise UsageError(f"{a.name} and {b.name} have different classes")
    seen = (a.trained_on or frozenset()) | (b.trained_on or frozenset())
    rows = {key: row for row, key in enumerate(a.ledger.keys)}
    pairs = [(rows[key], row, key) for row, key in enumerate(b.ledger.keys) if key in rows]
    fair = [(first, second) for first, second, (digest, *_) in pairs if digest not in seen]
    if not fair:
        why = f"were tested on different images: none of {len(rows):,} and {len(b.answers):,}"
        why += " is in both"
        if pairs:
            why = f"share {len(pairs):,} test images, but one of them was trained on each"
        raise UsageError(f"{a.name} and {b.name} {why}", hint=_hint(a, b))
    first, second = (
        replace(side, ledger=side.ledger.rows(chosen))
        for side, chosen in zip((a, b), np.array(fair).T, strict=True)
    )
    return first, second, len(pairs) - len(fair)


def compare(a: Side, b: Side, rule: Rule | None = None) -> Comparison:
    """Compare b with a; UsageError if they share no test images or have other classes."""
    rule, whole = rule or Rule(), (a, b)
    a, b, left_out = judged(a, b)
    n = len(a.answers)
    gained, lost = int((b.right & ~a.right).sum()), int((a.right & ~b.right).sum())
    right_a, right_b = int(a.right.sum()), int(b.right.sum())
    answers = Answers.of(a.ledger.labels, a.answers, b.answers, rule.metric)
    interval, classes, scores = answers.interval(), _per_class(a, b), answers.scores()
    verdict, reasons = decide(rule, interval, classes, answers)
    return Comparison(
        a=a.name,
        b=b.name,
        test_digest=a.ledger.test_digest,
        n=n,
        acc_a=right_a / n,
        acc_b=right_b / n,
        diff=(right_b - right_a) / n,
        ci=interval,
        mcnemar_p=mcnemar_p(gained, lost),
        wrong_to_right=gained,
        right_to_wrong=lost,
        per_class=classes,
        minimum_detectable=minimum_detectable(n, gained, lost),
        verdict=verdict,
        reasons=reasons,
        margin=rule.margin,
        metric=rule.metric,
        score_a=scores[0],
        score_b=scores[1],
        left_out=left_out,
        notes=_notes(*whole, n + left_out, left_out),
    )


def _per_class(a: Side, b: Side) -> tuple[ClassChange, ...]:
    rows = []
    for label, class_name in enumerate(a.class_names):
        here = a.ledger.labels == label
        n, right_a, right_b = (int(x.sum()) for x in (here, a.right[here], b.right[here]))
        shares = (right_a / n, right_b / n, (right_b - right_a) / n) if n else (None, None, None)
        gained, lost = (
            int((here & b.right & ~a.right).sum()),
            int((here & a.right & ~b.right).sum()),
        )
        acc_a, acc_b, diff = shares
        p = mcnemar_p(gained, lost)
        rows.append(ClassChange(label, class_name, n, acc_a, acc_b, diff, p))
    return tuple(rows)


def _hint(a: Side, b: Side) -> str:
    """How two versions without a common test image can be compared."""
    for side in (a, b):
        if side.trained_on is None:
            return f"train {side.name} again: it keeps no digests of its training images"
    return "mindtrace registry evaluate REF --config CFG tests a version on other images"


def _notes(a: Side, b: Side, common: int, left_out: int) -> tuple[str, ...]:
    """Which test images a comparison is about, where that is not just the set of both."""
    notes = [UNKNOWN_TRAINING.format(side.name) for side in (a, b) if side.trained_on is None]
    sizes = [len(side.answers) for side in (a, b)]
    if sizes != [common, common]:
        of_each = f"{a.name} has {sizes[0]:,}, {b.name} {sizes[1]:,}"
        notes.append(f"{common:,} test images are in both ({of_each})")
    if left_out:
        notes.append(f"left out {left_out:,} that {a.name} or {b.name} was trained on")
    return tuple(notes)


def _with_evaluation(reader: Reader, located: Located, side: Side, test_digest: str) -> Side:
    """A version's predictions, and those on another test set if it was evaluated on it."""
    # Of a version that does not say what it was trained on, other images prove nothing.
    known = side.trained_on is not None
    content = _kept(reader, located, f"{test_digest}.npz") if known else None
    if content is None:
        return side
    try:
        ledger = TestPredictions.parse(content)
    except ValueError as error:
        raise BundleError(side.name, f"its evaluation: {error}") from error
    # The manifest does not cover this file: it counts only if its images have the digest.
    shape = (len(ledger.labels), len(side.class_names))
    if ledger.test_digest != test_digest or ledger.probabilities.shape != shape:
        raise BundleError(side.name, f"its evaluation on {test_digest[:12]} is about other images")
    own = set(side.ledger.keys)
    more = ledger.rows([row for row, key in enumerate(ledger.keys) if key not in own])
    names = ("digests", "labels", "probabilities")
    both = {
        name: np.concatenate([getattr(one, name) for one in (side.ledger, more)]) for name in names
    }
    return replace(side, ledger=ordered(replace(side.ledger, **both)))


def _kept(reader: Reader, located: Located, name: str) -> bytes | None:
    """A file of the folder beside the bundle in the version's run; None if there is none."""
    if located.row is None or located.row.location is None:
        return None
    beside = f"{located.row.location.rstrip('/').rpartition('/')[0]}/{EVALUATIONS}"
    local = file_path(beside)
    try:
        if local is not None:
            return (local / name).read_bytes()
        with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
            reader.fetch(beside, Path(folder) / EVALUATIONS)
            return (Path(folder) / EVALUATIONS / name).read_bytes()
    except (FileNotFoundError, StoreError):
        return None
