"""A comparison as one HTML page with the images that changed: no script, no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from mindtrace.errors import DataError, MindtraceError

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.registry.comparison import ClassChange, Comparison, Side
    from mindtrace.registry.reference import Located

# A page of thousands of images is slow to open and no easier to judge.
MOST = 120
_THUMBNAIL = 96  # pixels

_STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1c2024;--soft:#60686f;
--line:#dfe3e6;--good:#18794e;--bad:#c62a2f;--unsure:#95690d;--bar:#c9d2d9}
@media(prefers-color-scheme:dark){:root{--ground:#131517;--card:#1b1e21;--ink:#eceef0;
--soft:#9aa3ab;--line:#30363b;--good:#4cc38a;--bad:#ff6369;--unsure:#f1b04c;--bar:#434b52}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.25rem 0 .6rem}
p{margin:.3rem 0}.soft{color:var(--soft)}
code{font-size:.9em;overflow-wrap:anywhere}
.verdict{border-left:.35rem solid;padding:.5rem .9rem;margin:1rem 0;background:var(--card)}
.verdict b{font-size:1.15rem;letter-spacing:.02em}
.PROMOTE{border-color:var(--good)}.REJECT{border-color:var(--bad)}.HOLD{border-color:var(--unsure)}
.PROMOTE b,.up{color:var(--good)}.REJECT b,.down{color:var(--bad)}.HOLD b{color:var(--unsure)}
.verdict p{color:var(--ink)}
dl{display:grid;grid-template-columns:repeat(2,1fr);gap:.6rem;margin:1rem 0}
@media(min-width:40rem){dl{grid-template-columns:repeat(3,1fr)}}
dl div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.55rem .8rem}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-size:1.2rem;font-variant-numeric:tabular-nums}
figure{margin:0}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:15px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:500;font-size:.85rem}
.flips{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.7rem}
.flip{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem;
font-size:.85rem;overflow-wrap:anywhere}
.flip img,.blank{display:block;width:100%;aspect-ratio:1;object-fit:contain;border-radius:.3rem;
background:#000;image-rendering:pixelated;margin-bottom:.45rem}
.blank{background:var(--ground);border:1px dashed var(--line)}
.flip span{display:block}
footer{margin-top:3rem;font-size:.85rem}
"""


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
        '<footer class="soft">Interval: paired bootstrap, 95 %, 10,000 resamples. p: McNemar\'s '
        "test, exact and two-sided. Written by mindtrace registry compare.</footer>",
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


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
    demand = InputRequirements(**vars(ModelConfig.read(located.folder).spec))
    data, found = build_data(made, demand, rule), {}
    # A test image of both may be in another split of a configuration that draws it otherwise.
    for split in map(data.split, ("test", "train", "val")):
        for image, digest in zip(split.images, split.digests(), strict=True):
            if digest.hex() in wanted and digest.hex() not in found:
                thumbnail: Any = Image.fromarray(to_pixels(image[None])[0])
                thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
                file = io.BytesIO()
                thumbnail.save(file, "PNG")
                found[digest.hex()] = base64.b64encode(file.getvalue()).decode("ascii")
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
    return f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{v}</dd></div>' for k, v in rows)}</dl>"


def _interval(comparison: Comparison) -> str:
    """The interval on a line with zero and the margin, as SVG."""
    (low, high), margin = comparison.ci, comparison.margin
    reach = 1.15 * max(abs(low), abs(high), margin, 1e-4)

    def place(value: float) -> float:
        return 300 + 280 * value / reach

    zero, edge = place(0), place(-margin)
    words = f"difference {comparison.diff:+.4f}, between {low:+.4f} and {high:+.4f}"
    return (
        f'<figure><svg viewBox="0 0 600 84" role="img" aria-label="{words}">'
        '<line x1="20" x2="580" y1="40" y2="40" stroke="var(--line)" stroke-width="2"/>'
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="22" y2="58" stroke="var(--soft)"/>'
        f'<line x1="{edge:.1f}" x2="{edge:.1f}" y1="22" y2="58" stroke="var(--bad)"'
        ' stroke-dasharray="4 3"/>'
        f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="40" y2="40"'
        ' stroke="var(--ink)" stroke-width="6" stroke-linecap="round"/>'
        f'<circle cx="{place(comparison.diff):.1f}" cy="40" r="8" fill="var(--ink)"'
        ' stroke="var(--ground)" stroke-width="3"/>'
        f'<text x="{zero:.1f}" y="15" text-anchor="middle">0</text>'
        f'<text x="{edge:.1f}" y="77" text-anchor="middle">margin -{margin:g}</text>'
        f'</svg><p class="soft">{_signed(comparison.diff)}, between {low:+.4f} and {high:+.4f}; '
        "the smallest difference that this test set shows is "
        f"{comparison.minimum_detectable:.4f}</p></figure>"
    )


def _classes(classes: Sequence[ClassChange]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.class_name)}</td><td>{one.n:,}</td><td>{_share(one.acc_a)}</td>"
        f"<td>{_share(one.acc_b)}</td><td>{'' if one.diff is None else _signed(one.diff)}</td></tr>"
        for one in classes
    )
    head = "".join(f"<th>{word}</th>" for word in ("class", "images", "before", "now", "change"))
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


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
            image = f'<img alt="{name}" src="data:image/png;base64,{png}">'
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
