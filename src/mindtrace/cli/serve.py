"""`mindtrace serve`: run the HTTP server."""

from mindtrace import service
from mindtrace.cli.command import MODEL, Call, flag, setting


def serve(
    call: Call,
    host: str | None = setting(
        "ADDRESS", "serve.host", "Address to bind; any but loopback needs a token"
    ),
    port: str | None = setting("INT", "serve.port", "Port to bind"),
    workers: str | None = setting("INT", "serve.workers", "Server processes"),
    model: str | None = MODEL,
    token_file: str | None = setting(
        "FILE", "serve.token_file", "File with the token that clients must send"
    ),
    no_worker: bool = flag("--no-worker", "Accept jobs, but start no training process."),
    allow_label_change: bool = flag(
        "--allow-label-change", "Accept a champion with other classes than the previous one."
    ),
) -> None:
    """Serve a version over HTTP.

    POST /inference, POST /retrain; the documentation of all endpoints is at /docs.
    """
    options = {"serve.host": host, "serve.port": port, "serve.workers": workers}
    service.serve.serve(
        call.settings({**options, "serve.token_file": token_file}),
        model,
        worker=not no_worker,
        allow_label_change=allow_label_change,
        # Programs that asked for port 0 read the address from here.
        ready=lambda url: call.console.ready(
            {"url": url, "docs_url": f"{url}/docs"},
            f"serving at {url}, documentation at {url}/docs",
        ),
    )
