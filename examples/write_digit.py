"""Write one of the test images of `digits` as a PNG, to have something to predict.

python examples/write_digit.py digit.png [INDEX]
"""

from __future__ import annotations

import sys

from mindtrace.data import Digits
from mindtrace.utils import tensor_to_pil


def main(path: str, index: int = 0) -> None:
    """Enlarge the test image `index` to 128 x 128 pixels and say what is on it."""
    image, label = Digits().sample("test", index)
    tensor_to_pil(image).resize((128, 128), resample=0).save(path)
    print(f"{path}: a handwritten {label}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
