"""Two versions, image by image, from their ledgers alone.

In: two bundles on disk. Out: a `Comparison`, and which images changed. No model is run
and no image is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import DATA_FILE, MODEL_FILE, PREDICTIONS_FILE
from mindtrace.bundle.model_config import ModelConfig, ModelConfigError
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.documents import document
from mindtrace.errors import BundleError, UsageError
from mindtrace.registry import paired
from mindtrace.registry.gate import MARGIN, ClassChange, decide
from mindtrace.registry.reference import Located


@dataclass(frozen=True, eq=False)
class Side:
    """What one version said of its test set.

    Attributes:
        name: `NAME/VERSION`, or the bundle's folder.
        test_digest: of its test set.
        class_names: by label.
        ledger: its answers, in the order of (image digest, label).
    """

    name: str
    test_digest: str
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


@dataclass(frozen=True)
class Comparison:
    """Version b beside version a.

    Attributes:
        a: the first version, `NAME/VERSION` or a folder.
        b: the second.
        test_digest: of the test set that both answered.
        n: its images.
        acc_a: accuracy of a.
        acc_b: accuracy of b.
        diff: `acc_b - acc_a`.
        ci: 95 % interval of the difference, paired bootstrap.
        mcnemar_p: two-sided exact p value.
        wrong_to_right: images that only b gets right.
        right_to_wrong: images that only a gets right.
        per_class: the same by class.
        minimum_detectable: the smallest difference this test set could show.
        verdict: of the gate, b as challenger of a.
        reasons: of the verdict.
        margin: of the gate.
    """

    a: str
    b: str
    test_digest: str
    n: int
    acc_a: float
    acc_b: float
    diff: float
    ci: tuple[float, float]
    mcnemar_p: float
    wrong_to_right: int
    right_to_wrong: int
    per_class: tuple[ClassChange, ...]
    minimum_detectable: float
    verdict: str
    reasons: tuple[str, ...]
    margin: float

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry compare`."""
        lists = {"ci": list(self.ci), "reasons": list(self.reasons)}
        classes = [dict(vars(change)) for change in self.per_class]
        return document({**vars(self), **lists, "per_class": classes})


def read_side(located: Located) -> Side:
    """The ledger of a bundle, every byte of the bundle checked.

    Raises:
        BundleError: it is not what was registered, or a file does not say what it should.
    """
    row = located.row
    name = str(located.folder) if row is None else f"{row.name}/{row.version}"
    files = manifest.check(located.folder, located.digest)
    try:
        card = ModelConfig.from_json(files[MODEL_FILE].decode())
        ledger = TestPredictions.parse(files[PREDICTIONS_FILE])
        test_digest = str(json.loads(files[DATA_FILE])["test_digest"])
    except KeyError as error:
        raise BundleError(name, f"{error} is missing, so it cannot be compared") from error
    except (ModelConfigError, ValueError, TypeError) as error:
        raise BundleError(name, str(error)) from error
    n, classes = len(ledger.labels), len(card.class_names)
    if n == 0 or ledger.digests.shape != (n, 32) or ledger.probabilities.shape != (n, classes):
        raise BundleError(name, "its ledger does not fit its classes")
    return Side(name, test_digest, card.class_names, ordered(ledger))


def compare(a: Side, b: Side, margin: float = MARGIN) -> Comparison:
    """Set b beside a.

    Raises:
        UsageError: they answered different test sets, or have other classes.
        BundleError: their ledgers are about different images all the same.
    """
    _demand_comparable(a, b)
    labels = a.ledger.labels
    n = len(labels)
    gained, lost = int((b.right & ~a.right).sum()), int((a.right & ~b.right).sum())
    right_a, right_b = int(a.right.sum()), int(b.right.sum())
    interval = paired.bootstrap_interval(n, gained, lost)
    classes = _per_class(a, b)
    verdict, reasons = decide(interval, classes, margin)
    return Comparison(
        a=a.name,
        b=b.name,
        test_digest=a.test_digest,
        n=n,
        acc_a=right_a / n,
        acc_b=right_b / n,
        diff=(right_b - right_a) / n,
        ci=interval,
        mcnemar_p=paired.mcnemar_p(gained, lost),
        wrong_to_right=gained,
        right_to_wrong=lost,
        per_class=classes,
        minimum_detectable=paired.minimum_detectable(n, gained, lost),
        verdict=verdict,
        reasons=reasons,
        margin=margin,
    )


def _per_class(a: Side, b: Side) -> tuple[ClassChange, ...]:
    rows = []
    for label, class_name in enumerate(a.class_names):
        here = a.ledger.labels == label
        n = int(here.sum())
        if n == 0:
            rows.append(ClassChange(label, class_name, 0, None, None, None))
            continue
        right_a, right_b = int(a.right[here].sum()), int(b.right[here].sum())
        rows.append(
            ClassChange(label, class_name, n, right_a / n, right_b / n, (right_b - right_a) / n)
        )
    return tuple(rows)


def _demand_comparable(a: Side, b: Side) -> None:
    if a.test_digest != b.test_digest:
        raise UsageError(
            f"{a.name} and {b.name} were tested on different images: "
            f"test digests {a.test_digest[:12]} and {b.test_digest[:12]}",
            hint="mindtrace registry evaluate REF --config CFG tests a version on other images",
        )
    if a.class_names != b.class_names:
        raise UsageError(f"{a.name} and {b.name} have different classes")
    same = np.array_equal(a.ledger.digests, b.ledger.digests)
    if not (same and np.array_equal(a.ledger.labels, b.ledger.labels)):
        raise BundleError(b.name, f"its ledger is about other images than that of {a.name}")


def ordered(ledger: TestPredictions) -> TestPredictions:
    """A ledger by (digest, label): the same image twice has the same answer, so ties are equal."""
    words = np.ascontiguousarray(ledger.digests).view(">u8")
    order = np.lexsort((ledger.labels, *(words[:, column] for column in range(3, -1, -1))))
    return TestPredictions(ledger.digests[order], ledger.labels[order], ledger.probabilities[order])
