"""`mindtrace jobs`: a job's id comes in, what it does goes out; here or at a server."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindtrace.cli.common import Call, command
from mindtrace.cli.console import Cell
from mindtrace.cli.light import LightGroup

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.service.local_jobs import Document, Jobs

_LOOK_EVERY = 0.5  # seconds
_COLUMNS = ("job_id", "state", "submitted_at", "attempts", "epoch", "val_acc", "version", "error")

URL = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A running server, such as http://127.0.0.1:8000."),
]
TOKEN_FILE = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="File with the token that the server wants (serve.token_file)."
    ),
]
JOB = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]

app = typer.Typer(cls=LightGroup, help="Look at retraining jobs.", rich_markup_mode="rich")


@command(app, "list")
def list_jobs(
    call: Call,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most N jobs.")] = 20,
    url: URL = None,
    token_file: TOKEN_FILE = None,
) -> None:
    """List jobs, the newest first."""
    with closing(_jobs(call, url, token_file)) as jobs:
        found = jobs.list(limit)
    if call.console.json:
        for document in found:
            call.console.document(document)
        return
    call.console.table(_COLUMNS, [_row(document) for document in found])


@command(app)
def show(call: Call, *, job_id: JOB, url: URL = None, token_file: TOKEN_FILE = None) -> None:
    """Show how far a job is, and how it ended."""
    with closing(_jobs(call, url, token_file)) as jobs:
        document = jobs.show(job_id)
    if call.console.json:
        call.console.document(document)
    else:
        call.console.fields(job_fields(document))


@command(app)
def logs(
    call: Call,
    *,
    job_id: JOB,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
    url: URL = None,
    token_file: TOKEN_FILE = None,
) -> None:
    """Print what a job's trainings said."""
    from mindtrace.jobs.job import ENDED

    offset = 0
    with closing(_jobs(call, url, token_file)) as jobs:
        while True:
            # Asked first: what was said before the end is there to be read after it.
            ended = not follow or jobs.show(job_id)["state"] in ENDED
            while part := jobs.log(job_id, offset):
                sys.stdout.write(part.decode(errors="replace"))
                sys.stdout.flush()
                offset += len(part)
            if ended:
                return
            time.sleep(_LOOK_EVERY)


@command(app)
def cancel(call: Call, *, job_id: JOB, url: URL = None, token_file: TOKEN_FILE = None) -> None:
    """End a job, queued or training; nothing is registered.

    A training has 20 seconds to end. A job that has ended, or registers already, is a
    conflict (exit 5).
    """
    with closing(_jobs(call, url, token_file)) as jobs:
        document = jobs.cancel(job_id)
    if call.console.json:
        call.console.document(document)
    else:
        call.console.fields(job_fields(document))


def jobs_of(settings: Settings, url: str | None) -> Jobs:
    """The jobs of a server, or those of the settings."""
    if url is None:
        from mindtrace.service.local_jobs import LocalJobs

        return LocalJobs(settings)
    from mindtrace.service.remote_jobs import RemoteJobs, Stream
    from mindtrace.service.serving import read_token

    file = settings.serve.token_file
    return RemoteJobs(Stream(url, None if file is None else read_token(file)))


def job_fields(document: Document) -> list[tuple[str, Cell]]:
    """A job's document as names and values, those without a value left out."""
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            prefix = "" if name == "progress" else f"{name}."
            fields.update({prefix + key: inner for key, inner in value.items()})
        elif name != "schema_version":
            fields[name] = value
    return [(name, value) for name, value in fields.items() if value is not None]


def _jobs(call: Call, url: str | None, token_file: str | None) -> Jobs:
    return jobs_of(call.settings({"serve.token_file": token_file}), url)


def _row(document: Document) -> list[Cell]:
    flat = dict(job_fields(document))
    version = flat.get("version")
    reference = None if version is None else f"{flat.get('model_name')}/{version}"
    return [
        *(flat.get(name) for name in _COLUMNS[:-2]),
        reference,
        flat.get("error.message"),
    ]
