"""What is refused before a server runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ConfigError, UsageError
from mindtrace.service import serve as serving


def settings(root: Path, *sets: str) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={root}", *sets], environ={})


HOSTS = ("0.0.0.0", "::", "0", "::ffff:0.0.0.0", "192.0.2.1", "example.com")


@pytest.mark.parametrize("host", HOSTS)
def test_beyond_this_machine_a_token_is_a_must(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="token_file"):
        serving.serve(settings(tmp_path, f"serve.host={host}"))
    token = tmp_path / "token"
    token.write_text("abc\n")
    serving.check_token_rule(settings(tmp_path, f"serve.host={host}", f"serve.token_file={token}"))


def test_this_machine_needs_none(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.3.4.5"):
        serving.check_token_rule(settings(tmp_path, f"serve.host={host}"))
    with pytest.raises(ConfigError, match="must be a host name"):
        settings(tmp_path, "serve.host=")


def test_a_file_that_holds_no_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with pytest.raises(UsageError, match="No such file"):
        serving.read_token(token)
    for content in (b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe", b"\0"):
        token.write_bytes(content)
        with pytest.raises(UsageError, match="visible ASCII"):
            serving.read_token(token)


def test_addresses_that_are_not_ours() -> None:
    with pytest.raises(UsageError, match="cannot listen"):
        serving.listen("192.0.2.1", 0)
    with pytest.raises(UsageError, match="no such address"):
        serving.listen("no such host", 0)


def test_who_connects_early_waits() -> None:
    with serving.listen("127.0.0.1", 0) as listener:
        url = serving.url_of(*listener.getsockname()[:2])
        assert url == f"http://127.0.0.1:{listener.getsockname()[1]}"
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            pass
