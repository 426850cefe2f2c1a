"""`python -m mindtrace` is the `mindtrace` command."""

from mindtrace.cli.main import main

if __name__ == "__main__":
    main()
