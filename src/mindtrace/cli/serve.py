"""`mindtrace serve`: an address comes in, a server runs until it is told to stop."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Console
from mindtrace.documents import document


def serve(
    call: Call,
    *,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to bind; beyond loopback a token is a must (serve.host).",
        ),
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="INT", help="Port to bind (serve.port).")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="INT", help="Processes that answer (serve.workers).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="NAME, NAME@ALIAS, NAME/VERSION or a bundle's folder; else the champion.",
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File with the token callers must send (serve.token_file)."
        ),
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Take jobs, but start no process that trains.")
    ] = False,
    allow_label_change: Annotated[
        bool,
        typer.Option(
            "--allow-label-change", help="Take a champion with other classes than the one before."
        ),
    ] = False,
) -> None:
    """Serve a version over HTTP.

    POST /inference, POST /retrain; the documentation of all endpoints is at /docs.
    """
    settings = call.settings(
        {
            "serve.host": host,
            "serve.port": port,
            "serve.workers": workers,
            "serve.token_file": token_file,
        }
    )
    from mindtrace.service.serving import serve as service

    service(
        settings,
        model,
        worker=not no_worker,
        allow_label_change=allow_label_change,
        ready=lambda url: _say_where(call.console, url),
    )


def _say_where(console: Console, url: str) -> None:
    """The address, for people to open and for programs that asked for port 0 to read."""
    if console.json:
        console.document(document({"url": url, "docs_url": f"{url}/docs"}))
        sys.stdout.flush()
    else:
        console.note(f"serving at {url}, documentation at {url}/docs")
