"""Two versions image by image: the figures, the verdict of the gate, and a page of both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
from numpy.typing import NDArray

from mindtrace import html
from mindtrace.bundle.bundle import CONFIG_FILE, ModelConfig, read_data
from mindtrace.config.settings import Settings
from mindtrace.errors import DataError, MindtraceError, UsageError
from mindtrace.registry import gate
from mindtrace.registry.evaluation import UNKNOWN_TRAINING, Side, images_for
from mindtrace.registry.reference import Located, settings_of_bundle

# A page of thousands of images is slow to open and no easier to judge.
MOST = 120
_THUMBNAIL = 144  # pixels
Picture = tuple[str, str]  # the text of a data URL, the path of its file where it has one


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
    per_class: tuple[gate.ClassChange, ...]
    minimum_detectable: float
    verdict: str  # of the gate, b as challenger of a
    reasons: tuple[str, ...]
    margin: float
    metric: str  # of the scores and the interval
    score_a: float
    score_b: float
    left_out: int  # images that both answered and one was trained on
    notes: tuple[str, ...]  # which test images these are


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
        # How two versions without a common test image can be compared.
        hint = "mindtrace registry evaluate REF --config FILE  # tests a version on other images"
        if untold := [side.name for side in (a, b) if side.trained_on is None]:
            hint = f"train {untold[0]} again: it keeps no digests of its training images"
        raise UsageError(f"{a.name} and {b.name} {why}", hint=hint)
    first, second = (
        replace(side, ledger=side.ledger.rows(chosen))
        for side, chosen in zip((a, b), np.array(fair).T, strict=True)
    )
    return first, second, len(pairs) - len(fair)


def compare(a: Side, b: Side, rule: gate.Rule | None = None) -> Comparison:
    """Compare b with a; UsageError if they share no test images or have other classes."""
    rule, whole = rule or gate.Rule(), (a, b)
    a, b, left_out = judged(a, b)
    n, right_a, right_b, gained, lost = _counts(a.right, b.right)
    answers = gate.Answers.of(a.ledger.labels, a.answers, b.answers, rule.metric)
    interval, classes, scores = answers.interval(), _per_class(a, b), answers.scores()
    verdict, reasons = gate.decide(rule, interval, classes, answers)
    return Comparison(
        a=a.name,
        b=b.name,
        test_digest=a.ledger.test_digest,
        n=n,
        acc_a=right_a / n,
        acc_b=right_b / n,
        diff=(right_b - right_a) / n,
        ci=interval,
        mcnemar_p=gate.mcnemar_p(gained, lost),
        wrong_to_right=gained,
        right_to_wrong=lost,
        per_class=classes,
        minimum_detectable=gate.minimum_detectable(n, gained, lost),
        verdict=verdict,
        reasons=reasons,
        margin=rule.margin,
        metric=rule.metric,
        score_a=scores[0],
        score_b=scores[1],
        left_out=left_out,
        notes=_notes(*whole, n + left_out, left_out),
    )


def _per_class(a: Side, b: Side) -> tuple[gate.ClassChange, ...]:
    rows = []
    for label, class_name in enumerate(a.class_names):
        here = a.ledger.labels == label
        n, right_a, right_b, gained, lost = _counts(a.right[here], b.right[here])
        of_n = (right_a / n, right_b / n, (right_b - right_a) / n) if n else (None, None, None)
        acc_a, acc_b, diff = of_n
        p = gate.mcnemar_p(gained, lost)
        rows.append(gate.ClassChange(label, class_name, n, acc_a, acc_b, diff, p))
    return tuple(rows)


def _counts(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int, int, int, int]:
    """Images, those that a and that b get right, and those that only b and only a does."""
    return len(a), int(a.sum()), int(b.sum()), int((b & ~a).sum()), int((a & ~b).sum())


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


def comparison_page(
    settings: Settings, comparison: Comparison, a: Side, b: Side, located_b: Located
) -> str:
    """The page; its images are read as the configuration of b says."""
    a, b, _ = judged(a, b)
    confidence = b.ledger.probabilities.max(axis=1)
    changed = sorted((a.right != b.right).nonzero()[0].tolist(), key=lambda row: -confidence[row])
    lost, gained = ([row for row in changed if a.right[row] == was] for was in (True, False))
    images, missing = {}, ""
    try:
        wanted = {b.ledger.digests[row].tobytes() for row in changed}
        images = _thumbnails(settings, located_b, wanted) if wanted else {}
    except MindtraceError as error:
        missing = f"<h2>Images</h2>{_soft(f'The images cannot be shown: {escape(error.message)}')}"
    title, p_value = f"{comparison.b} beside {comparison.a}", comparison.mcnemar_p
    reasons = "".join(f"<p>{escape(reason)}</p>" for reason in comparison.reasons)
    figures = (
        (f"accuracy of {comparison.a}", f"{comparison.acc_a:.4f}"),
        (f"accuracy of {comparison.b}", f"{comparison.acc_b:.4f}"),
        ("difference", _signed(comparison.diff)),
        ("p", "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}"),
        ("wrong to right", f"{comparison.wrong_to_right:,}"),
        ("right to wrong", f"{comparison.right_to_wrong:,}"),
    )
    classes = (
        (
            *(escape(one.class_name), f"{one.n:,}"),
            *("" if share is None else f"{share:.4f}" for share in (one.acc_a, one.acc_b)),
            "" if one.diff is None else _signed(one.diff),
        )
        for one in comparison.per_class
    )
    digest = f"<code>{escape(comparison.test_digest[:12])}</code>"
    parts = (
        f"<h1>{escape(title)}</h1>",
        _soft(f"{comparison.n:,} test images, digest {digest}"),
        *(_soft(escape(note)) for note in comparison.notes),
        f'<div class="verdict {comparison.verdict}"><b>{comparison.verdict}</b>{reasons}</div>',
        html.figures(figures),
        "<h2>The difference, and how sure it is</h2>",
        _interval(comparison),
        "<h2>By class</h2>",
        html.table(("class", "images", "before", "now", "change"), classes),
        missing,
        *_gallery("Right before, wrong now", lost, a, b, images),
        *_gallery("Wrong before, right now", gained, a, b, images),
        '<footer class="soft">Interval: paired bootstrap, 95 %, 10,000 resamples, one pair '
        "more each way. p: McNemar's test, exact and two-sided. Written by mindtrace registry "
        "compare.</footer>",
    )
    return html.page(title, parts)


def _thumbnails(settings: Settings, located: Located, wanted: set[bytes]) -> dict[bytes, Picture]:
    """Test images by digest; MindtraceError if they cannot be had."""
    from PIL import Image

    from mindtrace.data.batches import to_pixels

    made = settings_of_bundle(settings, (located.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    spec, rule = ModelConfig.read(located.folder).spec, read_data(located.folder)["split_rule"]
    data, found = images_for(made, spec, rule), dict[bytes, Picture]()
    # A test image of both may be in another split of a configuration that draws it otherwise.
    for split in map(data.split, ("test", "train", "val")):
        names = split.files or [""] * len(split)
        for image, digest, name in zip(split.images, split.digests(), names, strict=True):
            if digest in wanted and digest not in found:
                pixels = to_pixels(image[None])[0]
                found[digest] = html.png(Image.fromarray(pixels), _THUMBNAIL), name
        if len(found) == len(wanted):
            break
    if not found:
        raise DataError("the images of this configuration are not those that were compared")
    return found


def _interval(comparison: Comparison) -> str:
    """The interval on a line with zero and the margin, as SVG."""
    (low, high), margin = comparison.ci, comparison.margin
    diff = comparison.score_b - comparison.score_a
    reach = 1.15 * max(abs(low), abs(high), margin, 1e-4)

    def place(value: float) -> str:
        return f"{300 + 280 * value / reach:.1f}"

    zero, edge = place(0), place(-margin)
    words = f"difference {diff:+.4f}, between {low:+.4f} and {high:+.4f}"
    shows = "the smallest difference that this test set shows is"
    return (
        f'<figure><svg viewBox="0 0 600 84" role="img" aria-label="{words}">'
        '<line x1="20" x2="580" y1="40" y2="40" stroke="var(--line)" stroke-width="2"/>'
        f'<line x1="{zero}" x2="{zero}" y1="22" y2="58" stroke="var(--soft)"/><line x1="{edge}"'
        f' x2="{edge}" y1="22" y2="58" stroke="var(--bad)" stroke-dasharray="4 3"/>'
        f'<line x1="{place(low)}" x2="{place(high)}" y1="40" y2="40"'
        ' stroke="var(--ink)" stroke-width="6" stroke-linecap="round"/>'
        f'<circle cx="{place(diff)}" cy="40" r="8" fill="var(--ink)"'
        ' stroke="var(--ground)" stroke-width="3"/>'
        f'<text x="{zero}" y="15" text-anchor="middle">0</text>'
        f'<text x="{edge}" y="77" text-anchor="middle">margin -{margin:g}</text></svg>'
        + _soft(
            f"{comparison.metric}: {_signed(diff)}, between {low:+.4f} and {high:+.4f}; "
            f"{shows} {comparison.minimum_detectable:.4f}"
        )
        + "</figure>"
    )


def _gallery(
    title: str, rows: Sequence[int], a: Side, b: Side, images: Mapping[bytes, Picture]
) -> Iterator[str]:
    """Images that changed, the most confident answers of b first; nothing if there are none."""
    if not rows:
        return
    shown = rows[:MOST]
    count = f"{len(rows):,}" if len(shown) == len(rows) else f"{len(shown)} of {len(rows):,}"
    yield f'<h2>{title} <span class="soft">({count})</span></h2><div class="flips">'
    for row in shown:
        name = escape(a.class_names[int(a.ledger.labels[row])])
        png, path = images.get(b.ledger.digests[row].tobytes(), ("", ""))
        image = f'<img alt="{name}" src="{png}">' if png else '<span class="blank"></span>'
        yield f'<div class="flip">{image}<span>is <b>{name}</b></span>'
        for side, when in ((a, "before"), (b, "now")):
            answer = escape(side.class_names[side.answers[row]])
            colour = "up" if side.right[row] else "down"
            share = side.ledger.probabilities[row].max()
            yield f'<span class="{colour}">{when}: {answer} ({share:.0%})</span>'
        yield f'<span class="soft">{escape(path)}</span></div>'
    yield "</div>"


def _soft(text: str) -> str:
    return f'<p class="soft">{text}</p>'


def _signed(value: float) -> str:
    side = "up" if value > 0 else "down" if value < 0 else "soft"
    return f'<span class="{side}">{f"{value:+.4f}" if value else "0"}</span>'
