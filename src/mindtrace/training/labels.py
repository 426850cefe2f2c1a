"""Labels that are probably wrong, by what classifiers say that have not seen the image."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mindtrace.config.networks import OWN_NETWORKS, PHOTO_NETWORK
from mindtrace.config.settings import Settings
from mindtrace.data.check import SuspectLabel, listed_images
from mindtrace.data.datamodule import build_data
from mindtrace.data.listing import STAGES
from mindtrace.errors import DownloadError
from mindtrace.models import build_model, input_requirements
from mindtrace.progress import Progress
from mindtrace.training.fit import resolve_compute
from mindtrace.training.frozen import FrozenPart, last_layer, lbfgs, minimise, scale_of

_FOLDS = 5
# Weight decay, and how much more probable another class is. Tried on 4,311 photos of five classes
# with 5 % wrong labels: of the first 50 suspects 49 were those, of the first 100 82.
_DECAY, _TIMES = 0.3, 10.0


def suspect_labels(settings: Settings, progress: Progress) -> tuple[SuspectLabel, ...]:
    """Images of all splits whose label is probably wrong, the most suspect first."""
    name, weights = settings.model.name, settings.model.weights
    if name in OWN_NETWORKS:
        name, weights = PHOTO_NETWORK, "default"
    elif weights in ("auto", "none"):
        weights = "default"
    changes = {"model.name": name, "model.weights": weights, "model.freeze": True}
    settings = resolve_compute(settings.replace(**changes))
    data = build_data(settings, input_requirements(settings.model))
    data.progress = progress
    try:
        model = build_model(settings.model, settings.train, data.spec, data.class_names)
    except DownloadError as error:
        error.hint = f"--set model.name={name} --set model.weights=PATH  # a file of them"
        raise
    part = FrozenPart(model, settings, progress)
    features = torch.cat([part.features(data.split(stage)) for stage in STAGES])
    labels = torch.cat([data.split(stage).labels for stage in STAGES])
    progress.stage("comparing the labels")
    answers = held_out_probabilities(features.flatten(1), labels, len(data.class_names))
    own = answers.gather(1, labels[:, None])[:, 0]
    largest, others = answers.max(1)
    # Of a class of one image there is none to learn from.
    judged = torch.bincount(labels)[labels] > 1
    suspect = judged & (largest > _TIMES * own)
    images = listed_images(data)
    return tuple(
        SuspectLabel(
            **vars(images[at].place),
            suggested=data.class_names[int(others[at])],
            confidence=float(own[at]),
        )
        for at in own.argsort(stable=True).tolist()
        if suspect[at]
    )


def held_out_probabilities(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Of each image, by a last layer that the other folds trained: float32 (images, classes)."""
    mean, deviation = scale_of(features)
    features = (features - mean) / deviation
    fold = torch.empty_like(labels)
    fold[labels.argsort(stable=True)] = torch.arange(len(labels)) % _FOLDS  # of each class a fifth
    answers = torch.empty(len(labels), classes)
    for held_out in range(_FOLDS):
        here = fold == held_out
        layer = _trained(features[~here], labels[~here], classes)
        with torch.no_grad():
            answers[here] = layer(features[here]).softmax(1)
    return answers


def _trained(features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    layer = last_layer(features.shape[1], classes)
    minimise(lbfgs(layer), layer, lambda: cross_entropy(layer(features), labels), _DECAY)
    return layer
