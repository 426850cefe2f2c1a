"""The command in a process that stops at a chosen moment, to do something to it or around it."""

from __future__ import annotations

import sys

# Once, right before a function is called: fills a file system, so that the errors are the
# kernel's, or says so and waits for a line. Without a function, before everything.
_PROGRAM = """
import functools, importlib, os, sys
action, moment, *words = sys.argv[1:]

def fill():
    with open(action, "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)): pass
            except OSError: pass

def wait():
    if not waited:
        waited.append(os.write(1, b"now\\n"))
        sys.stdin.readline()

waited = []
act = wait if action == "wait" else fill
module, _, path = moment.partition(":")
if path:
    owner = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes: owner = getattr(owner, one)
    function = getattr(owner, name)

    @functools.wraps(function)
    def acting(*args, **options):
        act()
        return function(*args, **options)

    setattr(owner, name, acting)
else:
    act()
sys.argv = ["mindtrace", *words]
from mindtrace.cli.main import main
main()
"""


def command(action: str, moment: str, *words: str) -> list[str]:
    """`mindtrace WORDS` in which `wait`, or filling this file, comes before `module:function`."""
    return [sys.executable, "-c", _PROGRAM, action, moment, *words]
