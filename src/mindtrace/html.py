"""Pages of HTML that stand alone: no script, no other file."""

from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

from mindtrace.utils.images import pil_to_ascii

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


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document; `title` is text, `parts` are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def figures(rows: Iterable[tuple[str, str]]) -> str:
    """Names, as text, and values, as HTML, side by side."""
    return f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{v}</dd></div>' for k, v in rows)}</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells."""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    names = "".join(f"<th>{escape(word)}</th>" for word in head)
    return f'<div class="scroll"><table><tr>{names}</tr>{lines}</table></div>'


def png(image: Image.Image, side: int) -> str:
    """A copy of at most `side` pixels as the text of a data URL."""
    copy = image.copy()
    copy.thumbnail((side, side))
    return f"data:image/png;base64,{pil_to_ascii(copy)}"
