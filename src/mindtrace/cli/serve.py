"""`mindtrace serve`: run the HTTP server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mindtrace.cli.command import Call, ModelRef
from mindtrace.cli.console import Console


def serve(
    call: Call,
    *,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to bind; any but loopback needs a token (serve.host).",
        ),
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="INT", help="Port to bind (serve.port).")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="INT", help="Server processes (serve.workers).")
    ] = None,
    model: ModelRef = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File with the token that clients must send (serve.token_file)."
        ),
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Accept jobs, but start no training process.")
    ] = False,
    allow_label_change: Annotated[
        bool,
        typer.Option(
            "--allow-label-change",
            help="Accept a champion with other classes than the previous one.",
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
    from mindtrace.service.serve import serve as service

    service(
        settings,
        model,
        worker=not no_worker,
        allow_label_change=allow_label_change,
        ready=lambda url: _report_url(call.console, url),
    )


def _report_url(console: Console, url: str) -> None:
    """The address; programs that asked for port 0 read it from here."""
    if console.json:
        console.document({"url": url, "docs_url": f"{url}/docs"})
        sys.stdout.flush()
    else:
        console.note(f"serving at {url}, documentation at {url}/docs")
