"""How often the gate is wrong: equal models that it rejects, worse ones that it promotes.

Simulated, with numpy alone: two versions answer the same images; on a share of them one is right
and the other wrong. Equal models differ as often each way; the worse one loses as many points more.

    python benchmarks/gate.py [--rounds 400] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from mindtrace.registry.gate import Answers, ClassChange, Rule, decide, mcnemar_p

CLASSES = (2, 10, 100)
A_CLASS = (10, 36, 100, 1000)  # images
CHANGED = (0.01, 0.04, 0.08)  # of the images, each way
WORSE = 0.02
METRICS = ("accuracy", "balanced_accuracy", "f1_macro")
VERDICTS = ("PROMOTE", "HOLD", "REJECT")
MOST_IMAGES = 20_000
SLOW_METRIC_IMAGES = 2_000  # f1_macro draws a number for each kind of answer
_INTERVALS: dict[tuple[object, ...], tuple[float, float]] = {}  # many draws count the same


def drawn(
    classes: int, images: int, changed: float, worse: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and both versions' answers; a wrong answer is the next class."""
    labels = np.repeat(np.arange(classes), images)
    kind = random.choice(3, len(labels), p=[changed, changed + worse, 1 - 2 * changed - worse])
    wrong = (labels + 1) % classes
    return labels, np.where(kind == 0, wrong, labels), np.where(kind == 1, wrong, labels)


def verdict(labels: np.ndarray, a: np.ndarray, b: np.ndarray, rule: Rule, resamples: int) -> str:
    """What the gate says of b; without the images that HOLD would name."""
    rows = []
    for label in np.unique(labels):
        here = labels == label
        right_a, right_b = a[here] == label, b[here] == label
        gained, lost = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())
        n, before, now = int(here.sum()), float(right_a.mean()), float(right_b.mean())
        rows.append(
            ClassChange(
                int(label), str(label), n, before, now, now - before, mcnemar_p(gained, lost)
            )
        )
    answers = Answers.of(labels, a, b, rule.metric)
    key = (rule.metric, resamples, answers.cells.tobytes(), answers.counts.tobytes())
    if key not in _INTERVALS:
        _INTERVALS[key] = answers.interval(resamples)
    return decide(rule, _INTERVALS[key], rows)[0]


def cases(rounds: int) -> Iterator[dict[str, object]]:
    """One row of results after the other."""
    for metric in METRICS:
        for classes in CLASSES:
            for images in A_CLASS:
                limit = MOST_IMAGES if metric == "accuracy" else SLOW_METRIC_IMAGES
                if classes * images > limit:
                    continue
                for changed in CHANGED:
                    yield case(metric, classes, images, changed, rounds)


def case(metric: str, classes: int, images: int, changed: float, rounds: int) -> dict[str, object]:
    """How often each verdict falls on equal models and on one that is worse."""
    # Of the other metrics fewer rounds and resamples: each is a hundred times as slow.
    fast = metric == "accuracy"
    rounds, resamples = (rounds, 10_000) if fast else (max(1, rounds // 4), 2_000)
    found = {"metric": metric, "classes": classes, "a_class": images, "changed": changed}
    for name, worse in (("equal", 0.0), ("worse", WORSE)):
        random = np.random.default_rng([METRICS.index(metric), classes, images, bool(worse)])
        said = [
            verdict(*drawn(classes, images, changed, worse, random), Rule(metric), resamples)
            for _ in range(rounds)
        ]
        found |= {f"{name}_{one}": said.count(one) / rounds for one in VERDICTS}
    return {**found, "rounds": rounds}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    head = "| metric | classes | images a class | changed each way | equal: PROMOTE | HOLD | REJECT"
    sys.stdout.write("" if options.json else head + " | worse: PROMOTE | HOLD | REJECT |\n")
    sys.stdout.write("" if options.json else "|---" * 10 + "|\n")
    rows = []
    for row in cases(options.rounds):
        rows.append(row)
        keys = ("metric", "classes", "a_class")
        shares = [row[f"{name}_{one}"] for name in ("equal", "worse") for one in VERDICTS]
        cells = [*(str(row[key]) for key in keys), f"{row['changed']:.0%}"]
        line = " | ".join([*cells, *(f"{share:.1%}" for share in shares)])
        sys.stdout.write(json.dumps(row) + "\n" if options.json else f"| {line} |\n")
        sys.stdout.flush()
    rejected = max(float(str(row["equal_REJECT"])) for row in rows)
    promoted = max(float(str(row["worse_PROMOTE"])) for row in rows)
    seconds = time.perf_counter() - began
    sys.stderr.write(f"equal models rejected: at most {rejected:.1%}\n")
    sys.stderr.write(f"worse models promoted: at most {promoted:.1%}; {seconds:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
