"""Train, track and register with Lightning's own Trainer.

MNIST is downloaded once; or put its four files into `<ROOT>/data/MNIST/raw` by hand.
"""

from pytorch_lightning import Trainer

from mindtrace.data import MNIST
from mindtrace.models import MLP
from mindtrace.registry import MlflowLightningCallback


def main() -> None:
    """One epoch of MNIST, as an MLflow run and as a version of the model `mnist`."""
    dataset = MNIST(batch_size=64)
    model = MLP(dim=[784, 100, 10], dropout=0.2)
    callback = MlflowLightningCallback(
        experiment_name="starter", run_name="mlp", params={"dropout": 0.2, "hidden": 100}
    )
    trainer = Trainer(max_epochs=1, callbacks=[callback])
    trainer.fit(model, dataset)
    trainer.test(model, dataset)

    image, label = dataset.sample("test", idx=0)
    print(f"a {label} was taken for a {int(model.predict(image))}")
    print(f"run {callback.run_id}, registered as {callback.published}")


if __name__ == "__main__":
    main()
