"""The command line: parses, calls one service function, renders the answer."""

import gc
import os

# Before the imports that they shorten. Most commands are over before the collector finds
# anything; and we have no plugins for pydantic, which it looks for in every installed package.
gc.set_threshold(200_000, 20, 100)
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
