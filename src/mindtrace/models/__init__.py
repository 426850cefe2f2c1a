"""Floor 5: networks, and the one Lightning module that trains any of them."""

from mindtrace.models.build import build_model, network_demand
from mindtrace.models.classifier import ImageClassifier
from mindtrace.models.mlp import MLP

__all__ = ["MLP", "ImageClassifier", "build_model", "network_demand"]
