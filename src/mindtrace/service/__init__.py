"""Floor 9: what mindtrace can do, one module a verb; plain values in, frozen dataclasses out."""
