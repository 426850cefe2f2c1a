"""`mindtrace serve`: an address comes in, a server runs until it is told to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from mindtrace.cli.common import Call


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

    service(settings, model)
