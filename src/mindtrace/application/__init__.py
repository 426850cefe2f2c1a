"""Floor 10: the HTTP door. Parses a request, calls one service function, renders its answer."""
