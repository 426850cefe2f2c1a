"""Configuration: declared keys, INI layers, typed settings, and the starter's `Config`."""
