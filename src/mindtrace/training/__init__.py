"""Floor 6: from settings and images to the best weights; knows no MLflow."""
