"""Floor 5: networks, and the one Lightning module that trains any of them."""

from mindtrace.models.classifier import ImageClassifier
from mindtrace.models.networks import MLP, build_model, input_requirements

__all__ = ["MLP", "ImageClassifier", "build_model", "input_requirements"]
