"""Floor 10: the command line. A verb parses, calls one service function and renders the answer."""
