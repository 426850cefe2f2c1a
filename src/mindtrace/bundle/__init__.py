"""The folder that a registered version is; needs no torch and no MLflow."""
