"""`mindtrace serve`: run the HTTP server."""

from __future__ import annotations

from mindtrace.cli.command import MODEL, Call, flag, option


def serve(
    call: Call,
    host: str | None = option(
        "ADDRESS", "Address to bind; any but loopback needs a token (serve.host)."
    ),
    port: str | None = option("INT", "Port to bind (serve.port)."),
    workers: str | None = option("INT", "Server processes (serve.workers)."),
    model: str | None = MODEL,
    token_file: str | None = option(
        "FILE", "File with the token that clients must send (serve.token_file)."
    ),
    no_worker: bool = flag("--no-worker", "Accept jobs, but start no training process."),
    allow_label_change: bool = flag(
        "--allow-label-change", "Accept a champion with other classes than the previous one."
    ),
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
        # Programs that asked for port 0 read the address from here.
        ready=lambda url: call.console.ready(
            {"url": url, "docs_url": f"{url}/docs"},
            f"serving at {url}, documentation at {url}/docs",
        ),
    )
