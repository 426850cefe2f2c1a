"""A comparison as one HTML page with the images that changed: no script, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mindtrace import html
from mindtrace.errors import DataError, MindtraceError

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.registry.comparison import Comparison, Side
    from mindtrace.registry.gate import ClassChange
    from mindtrace.registry.reference import Located

# A page of thousands of images is slow to open and no easier to judge.
MOST = 120
_THUMBNAIL = 96  # pixels


def comparison_page(
    settings: Settings, comparison: Comparison, a: Side, b: Side, located_b: Located
) -> str:
    """The page; its images are read as the configuration of b says."""
    from mindtrace.registry.comparison import judged

    a, b, _ = judged(a, b)
    right, confidence = a.right, b.ledger.probabilities.max(axis=1)
    changed = sorted((right != b.right).nonzero()[0].tolist(), key=lambda row: -confidence[row])
    images: Mapping[str, str] = {}
    missing = ""
    if changed:
        try:
            images = _thumbnails(settings, located_b, {b.digest(row) for row in changed})
        except MindtraceError as error:
            missing = (
                '<h2>Images</h2><p class="soft">The images cannot be shown: '
                f"{escape(error.message)}</p>"
            )
    lost = [row for row in changed if right[row]]
    gained = [row for row in changed if not right[row]]
    title = f"{escape(comparison.b)} beside {escape(comparison.a)}"
    reasons = "".join(f"<p>{escape(reason)}</p>" for reason in comparison.reasons)
    parts = (
        f"<h1>{title}</h1>",
        f'<p class="soft">{comparison.n:,} test images, digest '
        f"<code>{escape(comparison.test_digest[:12])}</code></p>",
        *(f'<p class="soft">{escape(note)}</p>' for note in comparison.notes),
        f'<div class="verdict {comparison.verdict}"><b>{comparison.verdict}</b>{reasons}</div>',
        _figures(comparison),
        "<h2>The difference, and how sure it is</h2>",
        _interval(comparison),
        "<h2>By class</h2>",
        _classes(comparison.per_class),
        missing,
        _gallery("Right before, wrong now", lost, ("up", "down"), a, b, images),
        _gallery("Wrong before, right now", gained, ("down", "up"), a, b, images),
        '<footer class="soft">Interval: paired bootstrap, 95 %, 10,000 resamples, one pair '
        "more each way. p: McNemar's test, exact and two-sided. Written by mindtrace registry "
        "compare.</footer>",
    )
    return html.page(f"{comparison.b} beside {comparison.a}", parts)


def _thumbnails(settings: Settings, located: Located, wanted: set[str]) -> Mapping[str, str]:
    """Small PNGs of test images by digest, as base64; MindtraceError if they cannot be had."""
    from PIL import Image

    from mindtrace.bundle.bundle import read_data
    from mindtrace.bundle.model_config import ModelConfig
    from mindtrace.data.batches import to_pixels
    from mindtrace.data.datamodule import build_data
    from mindtrace.preprocess import InputRequirements
    from mindtrace.registry.reference import settings_of_bundle

    config = (located.folder / "config.ini").read_text(encoding="utf-8")
    made = settings_of_bundle(settings, config)
    rule = read_data(located.folder)["split_rule"]
    requirements = InputRequirements(**vars(ModelConfig.read(located.folder).spec))
    data, found = build_data(made, requirements, rule), {}
    # A test image of both may be in another split of a configuration that draws it otherwise.
    for split in map(data.split, ("test", "train", "val")):
        for image, digest in zip(split.images, split.digests(), strict=True):
            if digest.hex() in wanted and digest.hex() not in found:
                pixels = to_pixels(image[None])[0]
                found[digest.hex()] = html.png(Image.fromarray(pixels), _THUMBNAIL)
        if len(found) == len(wanted):
            break
    if not found:
        raise DataError("the images of this configuration are not those that were compared")
    return found


def _figures(comparison: Comparison) -> str:
    p_value = comparison.mcnemar_p
    rows = (
        (f"accuracy of {comparison.a}", f"{comparison.acc_a:.4f}"),
        (f"accuracy of {comparison.b}", f"{comparison.acc_b:.4f}"),
        ("difference", _signed(comparison.diff)),
        ("p", "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}"),
        ("wrong to right", f"{comparison.wrong_to_right:,}"),
        ("right to wrong", f"{comparison.right_to_wrong:,}"),
    )
    return html.figures(rows)


def _interval(comparison: Comparison) -> str:
    """The interval on a line with zero and the margin, as SVG."""
    (low, high), margin = comparison.ci, comparison.margin
    diff = comparison.score_b - comparison.score_a
    reach = 1.15 * max(abs(low), abs(high), margin, 1e-4)

    def place(value: float) -> float:
        return 300 + 280 * value / reach

    zero, edge = place(0), place(-margin)
    words = f"difference {diff:+.4f}, between {low:+.4f} and {high:+.4f}"
    return (
        f'<figure><svg viewBox="0 0 600 84" role="img" aria-label="{words}">'
        '<line x1="20" x2="580" y1="40" y2="40" stroke="var(--line)" stroke-width="2"/>'
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="22" y2="58" stroke="var(--soft)"/>'
        f'<line x1="{edge:.1f}" x2="{edge:.1f}" y1="22" y2="58" stroke="var(--bad)"'
        ' stroke-dasharray="4 3"/>'
        f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="40" y2="40"'
        ' stroke="var(--ink)" stroke-width="6" stroke-linecap="round"/>'
        f'<circle cx="{place(diff):.1f}" cy="40" r="8" fill="var(--ink)"'
        ' stroke="var(--ground)" stroke-width="3"/>'
        f'<text x="{zero:.1f}" y="15" text-anchor="middle">0</text>'
        f'<text x="{edge:.1f}" y="77" text-anchor="middle">margin -{margin:g}</text>'
        f'</svg><p class="soft">{comparison.metric}: {_signed(diff)}, '
        f"between {low:+.4f} and {high:+.4f}; the smallest difference that this test set shows is "
        f"{comparison.minimum_detectable:.4f}</p></figure>"
    )


def _classes(classes: Sequence[ClassChange]) -> str:
    return html.table(
        ("class", "images", "before", "now", "change"),
        (
            (
                *(escape(one.class_name), f"{one.n:,}", _share(one.acc_a), _share(one.acc_b)),
                "" if one.diff is None else _signed(one.diff),
            )
            for one in classes
        ),
    )


def _gallery(
    title: str,
    rows: Sequence[int],
    colours: tuple[str, str],
    a: Side,
    b: Side,
    images: Mapping[str, str],
) -> str:
    """Images that changed, the most confident answers of b first; nothing if there are none."""
    if not rows:
        return ""
    shown = rows[:MOST]
    count = f"{len(rows):,}" if len(shown) == len(rows) else f"{len(shown)} of {len(rows):,}"
    parts = [f'<h2>{title} <span class="soft">({count})</span></h2><div class="flips">']
    for row in shown:
        name = escape(a.class_names[int(a.ledger.labels[row])])
        png = images.get(b.digest(row))
        image = '<span class="blank"></span>'
        if png is not None:
            image = f'<img alt="{name}" src="{png}">'
        parts.append(f'<div class="flip">{image}<span>is <b>{name}</b></span>')
        for side, colour, when in zip((a, b), colours, ("before", "now"), strict=True):
            probabilities = side.ledger.probabilities[row]
            answer = escape(side.class_names[int(probabilities.argmax())])
            parts.append(
                f'<span class="{colour}">{when}: {answer} ({probabilities.max():.0%})</span>'
            )
        parts.append("</div>")
    return "".join(parts) + "</div>"


def _signed(value: float) -> str:
    side = "up" if value > 0 else "down" if value < 0 else "soft"
    return f'<span class="{side}">{f"{value:+.4f}" if value else "0"}</span>'


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
