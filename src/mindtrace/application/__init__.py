"""The HTTP interface: parses a request, calls one service function, renders its answer."""
