"""The command line: parses, calls one service function, renders the answer."""

import gc
import os
import sys

# Before the imports that they shorten. Most commands are over before the collector finds
# anything; and we have no plugins for pydantic, which it looks for in every installed package.
gc.set_threshold(200_000, 20, 100)
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

# A stream that the caller closed: the next file we open would take its number, and its place.
for _number, _name in enumerate(("stdin", "stdout", "stderr")):
    if getattr(sys, _name) is None:
        # Read-only, so that a result that nobody can get is an error; remarks may be lost.
        os.open(os.devnull, os.O_WRONLY if _name == "stderr" else os.O_RDONLY)
        setattr(sys, _name, os.fdopen(_number, "w" if _number else "r"))
