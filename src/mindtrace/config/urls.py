"""URLs: passwords masked for people to see, hosts, and the local files that some name."""

import ipaddress
import re
from pathlib import Path
from urllib.parse import unquote

# Texts may come from requests: nothing here is quadratic in their length.
_BETWEEN = re.compile(r"(\s+|,(?=[A-Za-z][A-Za-z0-9+.-]{0,31}://))")
# A slash before the colon: the path of a SQLite file, not a user's name.
_WEB = re.compile(r"(https?://[^/?#:@]*):[^/?#]*@", re.IGNORECASE)
# SQLAlchemy lets a database's password hold slashes: only the last @ ends it.
_DATABASE = re.compile(r"(?<!http)(?<!https)(://[^/:@]*):.*@", re.IGNORECASE | re.DOTALL)
_QUERY = re.compile(r"([?&][^=?&]*=)([^?&]*)")
_MARGIN = 4096  # characters behind what is shown that masking looks at
_LONGEST = 80  # characters of a text in a message
_SECRETS = ("pass", "pwd", "secret", "token", "key")
_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::(?P<port>\d{1,5}))?"
)


def masked(text: str) -> str:
    """`text` with the passwords of all URLs in it, and their secret parameters, as `***`."""
    if "://" not in text:
        return text
    return "".join(_masked_word(word) for word in _BETWEEN.split(text))


def _masked_word(word: str) -> str:
    word = _WEB.sub(r"\1:***@", word)
    end = word.rfind("@") + 1
    word = _DATABASE.sub(r"\1:***@", word[:end]) + word[end:]
    return _QUERY.sub(_masked_parameter, word)


def _masked_parameter(match: re.Match[str]) -> str:
    is_secret = any(secret in match[1].lower() for secret in _SECRETS)
    return f"{match[1]}***" if is_secret else match[0]


def shown(text: str) -> str:
    """`text` for one line of a message: masked, control characters escaped, cut."""
    # Cut twice: of megabytes only the beginning is walked, and enough of it that a secret
    # is still seen whole where it is masked.
    head = text[: _LONGEST + _MARGIN]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head)
    line = masked(line)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """`("127.0.0.1", 8000)` of `127.0.0.1:8000`; IPv6 in its shortest form; None if it is none."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or not 0 < int(match["port"] or 1) < 65536:
        return None
    port = int(match["port"]) if match["port"] else None
    if match["v6"] is None:
        return match["name"].lower(), port
    try:
        return str(ipaddress.IPv6Address(match["v6"])), port
    except ValueError:
        return None


def sqlite_path(url: str) -> Path | None:
    """The file of a `sqlite:///` URL; None for any other store."""
    prefix = "sqlite:///"
    return Path(url[len(prefix) :]) if url.startswith(prefix) else None


def file_path(uri: str) -> Path | None:
    """The local path of a `file:` URI or a plain path; None for any other place."""
    if uri.startswith("file:"):
        path = uri.removeprefix("file:").removeprefix("//localhost").removeprefix("//")
        return Path(unquote(path, errors="surrogateescape"))
    # Not `://`: MLflow's own schemes have one slash, as in `mlflow-artifacts:/1/2`.
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) else Path(uri)
