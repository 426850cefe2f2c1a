"""Floor 8: retrainings as jobs: a queue on disk, a runner, the child that trains."""
