"""The service layer that the command line, HTTP and Python callers share."""
