"""Networks, and the Lightning module that trains them."""

from mindtrace.models.classifier import ImageClassifier
from mindtrace.models.networks import CNN, MLP, build_model, input_requirements

__all__ = ["CNN", "MLP", "ImageClassifier", "build_model", "input_requirements"]
