"""Room core: the commented INI of `mindtrace config init`; the schema goes in, text comes out."""

from __future__ import annotations

from mindtrace.config.schema import SECTIONS, default_texts

_HEAD = """\
# Configuration of mindtrace. Every key stands here with its default, commented out:
# take the '#' away to change one. Comments stand on lines of their own.
#
# The environment (TRAIN__LR=0.01), --set train.lr=0.01 and a command's own options come
# before this file. Relative paths start at this file's folder, ~ is your home folder,
# ${SECTION:KEY} is another value and $$ a dollar.
"""


def template_ini() -> str:
    """An INI with every section, and every key commented out at its default."""
    texts = default_texts()
    lines = [_HEAD]
    for section in SECTIONS:
        lines += [f"# {section.doc}", f"[{section.name}]"]
        for key in section.keys:
            lines += ["", f"# {key.doc}", f"#   {key.kind.allowed}"]
            lines.append(f"#{key.name} = {texts[section.name, key.name]}".rstrip())
        lines.append("")
    return "\n".join(lines)
