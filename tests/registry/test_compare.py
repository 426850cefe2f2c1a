"""Two ledgers side by side: numbers that agree with scipy and counting by hand, and the gate."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tests.registry.conftest import Publish, with_ledger

from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictions import TestPredictions, pairs_digest
from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, UsageError
from mindtrace.registry.comparison import compare
from mindtrace.registry.evaluation import Side, ordered
from mindtrace.registry.gate import (
    Answers,
    ClassChange,
    Rule,
    decide,
    fallen_classes,
    mcnemar_p,
    minimum_detectable,
)
from mindtrace.service import promotion as service

counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 500))


@given(counts)
def test_p_is_the_exact_binomial_test(drawn: tuple[int, int, int]) -> None:
    gained, lost, _ = drawn
    changed = gained + lost
    expected = scipy.stats.binomtest(gained, changed).pvalue if changed else 1.0
    assert mcnemar_p(gained, lost) == pytest.approx(expected, abs=1e-12)


def test_p_of_many_changes_is_no_overflow() -> None:
    expected = scipy.stats.binomtest(6000, 10000).pvalue
    assert mcnemar_p(6000, 4000) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(5000, 5000) == 1.0


def answered(n: int, gained: int, lost: int) -> Answers:
    """Of n images b gains and loses these, and both answer the others right."""
    labels = np.zeros(n, np.int64)
    a, b = labels.copy(), labels.copy()
    a[:gained], b[gained : gained + lost] = 1, 1
    return Answers.of(labels, a, b, "accuracy")


@pytest.mark.parametrize(("n", "gained", "lost"), [(500, 40, 20), (1000, 3, 12), (200, 5, 5)])
def test_the_interval_is_that_of_resampling_images(n: int, gained: int, lost: int) -> None:
    """Direct: draw the images and one pair more each way with replacement."""
    change = np.repeat([1.0, -1.0, 0.0], [gained + 1, lost + 1, n - gained - lost])
    drawn = np.random.default_rng(1).integers(0, n + 2, (10_000, n + 2))
    direct = np.quantile(change[drawn].mean(axis=1), [0.025, 0.975])
    assert answered(n, gained, lost).interval() == pytest.approx(direct, abs=2 / n)


@given(counts)
def test_the_interval_is_always_the_same_and_holds_the_difference(
    drawn: tuple[int, int, int],
) -> None:
    gained, lost, same = drawn
    n = gained + lost + same
    low, high = answered(n, gained, lost).interval()
    assert (low, high) == answered(n, gained, lost).interval()
    assert -1 <= low <= (gained - lost) / n + 1 / n
    assert high <= 1


def test_equal_answers_leave_a_little_open() -> None:
    low, high = answered(100, 0, 0).interval()
    assert -0.04 < low < -0.01 < 0.01 < high < 0.04
    assert mcnemar_p(0, 0) == 1.0
    assert minimum_detectable(100, 0, 0) == 0.06


@given(counts)
def test_the_smallest_difference_solves_its_equation(drawn: tuple[int, int, int]) -> None:
    gained, lost, same = drawn
    n = gained + lost + same
    found = minimum_detectable(n, gained, lost)
    share = (gained + lost) / n
    assert 6 / n <= found or found == 1.0
    if 6 / n < found < 1 and found**2 <= share:
        needed = (1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - found**2)) ** 2
        assert needed / found**2 == pytest.approx(n, rel=1e-4)


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    """Simulated: a true difference of that size is called significant in 80 % of the sets."""
    n, share = 2000, 0.05
    size = minimum_detectable(n, 60, 40)
    up, down = (share + size) / 2, (share - size) / 2
    drawn = np.random.default_rng(0).multinomial(n, [up, down, 1 - share], size=2000)
    called = [mcnemar_p(int(gain), int(loss)) < 0.05 for gain, loss, _ in drawn]
    assert np.mean(called) == pytest.approx(0.8, abs=0.05)


def image_digests(images: Iterable[int]) -> NDArray[np.uint8]:
    chosen = np.array([*images], int)
    digests = np.zeros((len(chosen), 32), np.uint8)
    digests[:, 7], digests[:, 31] = chosen % 251, chosen // 251
    return digests


def side(
    name: str,
    right: list[bool],
    *,
    images: Iterable[int] | None = None,
    trained: Iterable[int] | None = (),
    seed: int | None = None,
    **changes: object,
) -> Side:
    """Answers to these images, or 0.., of two classes; a class is the image's last bit."""
    chosen = np.arange(len(right)) if images is None else np.array([*images], int)
    labels = chosen % 2
    answers = np.where(right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[answers] * 0.5 + 0.25
    n = len(right)
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    train = None if trained is None else image_digests(trained)
    arrays = (image_digests(chosen)[order], labels[order], probabilities[order], train)
    ledger = ordered(TestPredictions(*arrays))
    made = Side(name, ("even", "odd"), ledger)
    return dataclasses.replace(made, **changes)


def drawn_rights(seed: int, share: float, n: int = 400) -> list[bool]:
    return [bool(one) for one in np.random.default_rng(seed).random(n) < share]


def test_images_are_matched_by_digest_and_counted() -> None:
    right_a, right_b = drawn_rights(0, 0.8), drawn_rights(1, 0.9)
    found = compare(side("m/1", right_a, seed=3), side("m/2", right_b, seed=4))

    pairs = list(zip(right_a, right_b, strict=True))
    assert found.wrong_to_right == pairs.count((False, True))
    assert found.right_to_wrong == pairs.count((True, False))
    assert (found.acc_a, found.acc_b) == (sum(right_a) / 400, sum(right_b) / 400)
    assert found.diff == pytest.approx(found.acc_b - found.acc_a)
    even = found.per_class[0]
    assert (even.class_name, even.n) == ("even", 200)
    assert even.acc_b == sum(right_b[::2]) / 200
    assert found.ci[0] <= found.diff <= found.ci[1]


def test_turned_round_everything_changes_its_sign() -> None:
    a, b = side("m/1", drawn_rights(0, 0.8)), side("m/2", drawn_rights(1, 0.9))
    there, back = compare(a, b), compare(b, a)
    assert there.diff == -back.diff
    assert there.mcnemar_p == back.mcnemar_p
    assert there.minimum_detectable == back.minimum_detectable


# Test and training images of two versions; which are compared, and how many are left out.
GROWTH = {
    "the same": ((range(60), range(100, 200)), (range(60), range(100, 200)), range(60), 0),
    "grown": ((range(60), range(100, 200)), (range(80), range(100, 300)), range(60), 0),
    "shrunk": ((range(60), range(100, 200)), (range(50), range(100, 150)), range(50), 0),
    "drawn anew": ((range(60), range(60, 200)), (range(40, 99), range(40)), range(40, 60), 0),
    "one trained on": ((range(60), [7, 200]), (range(60), [8, 9]), [*range(7), *range(10, 60)], 3),
    "made before": ((range(60), None), (range(20, 90), range(20)), range(20, 60), 0),
    "both made before": ((range(60), None), (range(60), None), range(60), 0),
    "trained on its own": ((range(60), range(10)), (range(60), ()), range(10, 60), 10),
}


@pytest.mark.parametrize(("a", "b", "common", "left_out"), GROWTH.values(), ids=GROWTH)
def test_what_both_hold_and_none_was_trained_on_is_compared(
    a: Any, b: Any, common: Iterable[int], left_out: int
) -> None:
    wrong_of_b = {22, 55}
    one = side("m/1", [True] * len(a[0]), images=a[0], trained=a[1], seed=1)
    two = side("m/2", [i not in wrong_of_b for i in b[0]], images=b[0], trained=b[1], seed=2)
    found = compare(one, two)
    shared = set(common)
    assert (found.n, found.left_out) == (len(shared), left_out)
    assert found.right_to_wrong == len(wrong_of_b & shared)
    assert (found.acc_a, sum(row.n for row in found.per_class)) == (1.0, found.n)
    rows = [
        (digest.tobytes(), i % 2) for i, digest in zip(shared, image_digests(shared), strict=True)
    ]
    assert found.test_digest == pairs_digest(rows)
    old = [f"m/{n} keeps no digests" for n, trained in ((1, a[1]), (2, b[1])) if trained is None]
    assert [note.partition(" of its")[0] for note in found.notes[: len(old)]] == old
    grown = len(a[0]) != found.n or len(b[0]) != found.n
    assert len(found.notes) == len(old) + bool(left_out) + (grown and not left_out)
    assert compare(two, one).test_digest == found.test_digest


def test_equal_images_of_a_test_set_count_as_often_as_both_have_them() -> None:
    two = side("m/1", [True, True, False], images=[3, 3, 4])
    three = side("m/2", [False, False, False, True], images=[3, 3, 3, 4])
    found = compare(two, three)
    assert (found.n, found.right_to_wrong, found.wrong_to_right) == (3, 2, 1)
    assert found.test_digest == two.ledger.test_digest


NOTHING = {
    "other images": ({"images": range(50, 54)}, "different images: none of 4 and 4", "evaluate"),
    "other labels": ({"images": range(4), "relabel": True}, "different images", "evaluate"),
    "all trained on": ({"trained": range(9)}, "one of them was trained on each", "evaluate"),
    "made before": ({"images": range(50, 54), "trained": None}, "different images", "m/2 again"),
    "other classes": ({"class_names": ("a", "b")}, "different classes", ""),
}


@pytest.mark.parametrize(("changes", "words", "hint"), NOTHING.values(), ids=NOTHING)
def test_what_cannot_be_compared_is_refused(changes: Any, words: str, hint: str) -> None:
    relabel = changes.pop("relabel", False)
    a, b = side("m/1", [True] * 4), side("m/2", [True] * 4, **changes)
    if relabel:
        b = dataclasses.replace(b, ledger=dataclasses.replace(b.ledger, labels=1 - b.ledger.labels))
    with pytest.raises(UsageError, match=words) as caught:
        compare(a, b)
    assert hint in (caught.value.hint or "")


def worse(packed: Contents, flips: int) -> Contents:
    """The same bundle, with this many of its right answers wrong in the ledger."""
    probabilities = packed.predictions.probabilities.copy()
    right = (probabilities.argmax(axis=1) == packed.predictions.labels).nonzero()[0][:flips]
    probabilities[right] = np.roll(probabilities[right], 1, axis=1)
    return with_ledger(packed, probabilities=probabilities)


def test_registered_versions_are_compared_and_shown_on_one_page(
    register: Publish, packed: Contents, settings: Settings, tmp_path: Path
) -> None:
    register()
    register(contents=worse(packed, 7))
    found, page_of = service.compare_with_page(settings, "digits/1", "2")
    page = page_of()
    assert found == service.compare(settings, "digits/1", "2")
    assert (found.a, found.b) == ("digits/1", "digits/2")
    assert (found.right_to_wrong, found.wrong_to_right) == (7, 0)
    assert json.loads(json.dumps(document(found)))["ci"] == list(found.ci)
    assert page.count("data:image/png;base64,") == 7
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page
    assert not re.search(r"<script|https?://|<link|@import|url\(", page)
    with pytest.raises(NotFoundError):
        service.compare(settings, "digits/1", "3")

    config = f"[data]\nsource = folder\ndir = {tmp_path / 'gone'}\n"
    register(contents=dataclasses.replace(worse(packed, 3), config=config))
    comparison, page_of = service.compare_with_page(settings, "digits/1", "digits/3")
    page = page_of()
    assert comparison.right_to_wrong == 3
    assert "The images cannot be shown" in page
    assert "data:image/png" not in page

    path = next(iter(settings.dirs.root.glob("mlartifacts/**/bundle/predictions.npz")))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"predictions\.npz"):
        for other in ("digits/2", "digits/3"):
            service.compare(settings, "digits/1", other)


def change(n: int, right_a: int, right_b: int, name: str = "cat") -> ClassChange:
    """A class in which b only loses or only gains."""
    if n == 0:
        return ClassChange(0, name, 0, None, None, None)
    p = mcnemar_p(max(0, right_b - right_a), max(0, right_a - right_b))
    return ClassChange(0, name, n, right_a / n, right_b / n, (right_b - right_a) / n, mcnemar_p=p)


GATE = {
    "the edge belongs to the challenger": (-0.01, 0.02, (10, 5, 5), "PROMOTE", "not worse than 1"),
    "better": (0.02, 0.05, (10, 5, 5), "PROMOTE", "better: the difference lies between +0.0200"),
    "just too wide": (-0.0101, 0.02, (10, 5, 5), "HOLD", "cannot tell whether it is worse than 1"),
    "up to nothing": (-0.03, 0.0, (10, 5, 5), "HOLD", "cannot tell"),
    "within the margin, but worse": (-0.0066, -0.0003, (10, 5, 5), "REJECT", "worse: the diff"),
    "far worse": (-0.5, -0.4, (10, 5, 5), "REJECT", "worse"),
    "a class at the margin": (0.0, 0.1, (200, 200, 190), "PROMOTE", "not worse"),
    "a class below it": (0.0, 0.1, (200, 200, 180), "REJECT", "class cat falls from 1.0000"),
    "two flipped of 36": (-0.005, 0.1, (36, 36, 34), "PROMOTE", "not worse"),
    "a class rejects what would be held": (-0.1, 0.1, (40, 30, 15), "REJECT", "class cat falls"),
    "no image": (0.0, 0.1, (0, 0, 0), "PROMOTE", "not worse"),
}


@pytest.mark.parametrize(("low", "high", "counts", "verdict", "words"), GATE.values(), ids=GATE)
def test_the_gate(
    low: float, high: float, counts: tuple[int, int, int], verdict: str, words: str
) -> None:
    found, reasons = decide(Rule(), (low, high), [change(*counts), change(5, 1, 5)])
    assert (found, words in reasons[0]) == (verdict, True), reasons


def test_a_wider_margin_lets_more_pass_and_every_reason_is_given() -> None:
    assert decide(Rule(margin=0.01), (-0.04, 0.02))[0] == "HOLD"
    assert decide(Rule(margin=0.04), (-0.04, 0.02))[1][0].startswith("not worse than 4 points")
    assert decide(Rule(margin=0.0), (-0.001, 0.02))[0] == "HOLD"
    fallen = [change(40, 36, 20), change(40, 36, 4, "dog")]
    assert decide(Rule(class_margin=0.5), (-0.01, 0.2), fallen)[1][0].startswith("class dog")
    verdict, reasons = decide(Rule(), (-0.3, -0.2), fallen)
    assert (verdict, len(reasons)) == ("REJECT", 3)


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1)), max_size=12))
def test_classes_fall_by_holms_procedure(drawn: list[tuple[int, float, float]]) -> None:
    classes = [change(n, round(n * a), round(n * b), f"c{i}") for i, (n, a, b) in enumerate(drawn)]
    wanted, m = set(), len(classes)
    for rank, one in enumerate(sorted(classes, key=lambda one: one.mcnemar_p)):
        if one.mcnemar_p > 0.05 / (m - rank):
            break
        wanted |= {one.class_name} if (one.diff or 0) < -0.05 - 1e-9 else set()
    assert {line.split()[1] for line in fallen_classes(classes, 0.05)} == wanted


METRICS = ("accuracy", "balanced_accuracy", "f1_macro")


@pytest.mark.parametrize("metric", METRICS)
def test_the_metric_of_the_gate_is_the_usual_one(metric: str) -> None:
    draw = np.random.default_rng(3)
    labels = draw.choice(4, 500, p=[0.7, 0.2, 0.08, 0.02])
    a, b = (np.where(draw.random(500) < 0.8, labels, draw.integers(0, 4, 500)) for _ in "ab")
    found = Answers.of(labels, a, b, metric).scores()
    usual = {
        "accuracy": accuracy_score,
        "balanced_accuracy": balanced_accuracy_score,
        "f1_macro": lambda real, called: f1_score(real, called, average="macro"),
    }[metric]
    assert found == pytest.approx((usual(labels, a), usual(labels, b)))
    low, high = Answers.of(labels, a, b, metric).interval()
    assert low < found[1] - found[0] < high
    mirror = Answers.of(labels, b, a, metric).interval()
    assert mirror == pytest.approx((-high, -low), abs=0.01)


@pytest.mark.parametrize(
    ("n", "flips", "verdict"),
    [
        (20, 0, "HOLD"),
        (200, 0, "HOLD"),
        (400, 0, "PROMOTE"),
        (400, 6, "HOLD"),
        (4000, 6, "PROMOTE"),
    ],
)
def test_equal_models_pass_once_there_are_as_many_images_as_hold_says(
    n: int, flips: int, verdict: str
) -> None:
    right_a, right_b = ([(i + at) % n >= flips for i in range(n)] for at in (0, n // 2))
    found = compare(side("m/1", right_a), side("m/2", right_b))
    assert found.verdict == verdict, found.reasons
    if verdict == "HOLD":
        needed = int(re.findall(r"from about ([\d,]+) test", found.reasons[1])[0].replace(",", ""))
        for size, passes in ((needed * 11 // 10, True), (needed * 8 // 10, False)):
            share = flips / n
            lost = round(share * size)
            answers = answered(size, lost, lost)
            assert (answers.interval()[0] >= -0.01) is passes
