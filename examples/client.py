"""Ask a running `mindtrace serve`: classify image files, or train a new version.

    python examples/client.py digit.png other.jpg --top-k 3
    python examples/client.py --retrain examples/quickstart.ini

Only the standard library is used, so that this file can be copied anywhere.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Client:
    """A server's address, and its token if it has one."""

    def __init__(self, url: str = "http://127.0.0.1:8000", token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def classify(self, image: Path, top_k: int = 1) -> dict[str, Any]:
        """What the served version says of an image file."""
        encoded = base64.b64encode(image.read_bytes()).decode("ascii")
        return self._send("POST", "/inference", {"image": encoded, "top_k": top_k})

    def retrain(self, config: str) -> dict[str, Any]:
        """Queue a training from INI text; the job's document."""
        return self._send("POST", "/retrain", {"config": config})

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as it is now."""
        return self._send("GET", f"/jobs/{job_id}")

    def _send(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = dict(self.headers)
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


def follow(client: Client, job_id: str) -> dict[str, Any]:
    """Print a job's progress until it has ended."""
    shown = None
    while True:
        job = client.job(job_id)
        progress = job["progress"]
        now = (job["state"], progress["epoch"])
        if now != shown:
            print(f"{job_id} {job['state']} epoch {progress['epoch']}/{progress['max_epochs']}")
            shown = now
        if job["state"] in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(1)


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--top-k", type=int, default=1)
    parser.add_argument("--retrain", type=Path, metavar="INI")
    options = parser.parse_args(arguments)
    token = options.token_file.read_text().strip() if options.token_file else None
    client = Client(options.url, token)
    try:
        for image in options.images:
            answer = client.classify(image, options.top_k)
            print(f"{image}\t{answer['class_name']}\t{answer['confidence']:.4f}")
        if options.retrain:
            job = client.retrain(options.retrain.read_text(encoding="utf-8"))
            job = follow(client, job["job_id"])
            print(job["error"]["message"] if job["error"] else f"version {job['version']}")
            return 0 if job["state"] == "succeeded" else 1
    except urllib.error.HTTPError as error:
        # The body of every refusal is a problem document (RFC 9457).
        problem = json.load(error)
        print(f"error: {problem['detail']}", file=sys.stderr)
        for fault in problem.get("errors", ()):
            print(f"  {fault['message']}", file=sys.stderr)
        if "hint" in problem:
            print(f"hint: {problem['hint']}", file=sys.stderr)
        return 1
    except urllib.error.URLError as error:
        print(f"error: {options.url}: {error.reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
