"""From settings and images to the best weights; knows no MLflow."""
