"""Retraining jobs on DBOS: the queue, the worker, and the child process that trains."""
