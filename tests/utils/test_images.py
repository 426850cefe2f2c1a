"""One image as PIL, as ASCII text and as a tensor."""

from __future__ import annotations

import base64
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from mindtrace.utils import ascii_to_pil, pil_to_ascii, pil_to_tensor, tensor_to_pil


def noise(mode: str, size: tuple[int, int] = (5, 3)) -> Image.Image:
    """A picture of `size` (width, height) with every byte drawn at random."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    data = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.frombytes(mode, size, data.tobytes())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_ascii_carries_an_image_without_loss(mode: str) -> None:
    image = noise(mode)
    text = pil_to_ascii(image)
    back = ascii_to_pil(text)
    assert base64.b64decode(text, validate=True).startswith(b"\x89PNG\r\n")
    assert (back.mode, back.size, back.tobytes()) == (image.mode, image.size, image.tobytes())


CUT = base64.b64decode(pil_to_ascii(noise("RGB", (64, 64))))[:6000]


@pytest.mark.parametrize(
    "text",
    ["no base64!", "abc", "", *(base64.b64encode(data).decode() for data in (b"words", CUT))],
)
def test_ascii_that_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not (base64|a whole image)"):
        ascii_to_pil(text)


def test_black_and_white_becomes_0_and_255() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pil_to_tensor(image).tolist() == [[[0, 255]]]
    pil_to_tensor(image).zero_()  # a tensor does not share the image's memory
    assert pil_to_tensor(image).tolist() == [[[0, 255]]]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_tensor_holds_the_pixels_channels_first_and_gives_them_back(mode: str) -> None:
    image = noise(mode)
    pixels = pil_to_tensor(image)
    assert (pixels.dtype, pixels.shape[1:]) == (torch.uint8, (3, 5))
    assert (pixels.permute(1, 2, 0).numpy() == np.asarray(image).reshape(3, 5, -1)).all()
    for back in (tensor_to_pil(pixels), tensor_to_pil(pixels, min_val=0, max_val=255)):
        assert (back.mode, back.tobytes()) == (mode, image.tobytes())


def test_a_range_fills_black_to_white_and_cuts_what_lies_beyond() -> None:
    found = tensor_to_pil(torch.tensor([[-1.0, 0.0, 1.0]]))
    assert [*found.tobytes()] == [0, 128, 255]
    given_one = tensor_to_pil(torch.tensor([[-5.0, 0.0, 0.5, 1.0, 9.0]]), min_val=0, max_val=1)
    assert [*given_one.tobytes()] == [0, 0, 128, 255, 255]


def test_uint8_has_its_range_already() -> None:
    levels = torch.tensor([[50, 100]], dtype=torch.uint8)
    assert [*tensor_to_pil(levels).tobytes()] == [50, 100]
    assert [*tensor_to_pil(levels, max_val=100).tobytes()] == [128, 255]
    assert [*tensor_to_pil(levels, min_val=50, max_val=100).tobytes()] == [0, 255]
    assert [*tensor_to_pil(torch.full((1, 1), 7, dtype=torch.uint8)).tobytes()] == [7]


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 255.0])
@pytest.mark.parametrize("given_range", [(None, None), (None, 7.0), (2.0, 2.0)])
def test_a_constant_image_divides_by_nothing(
    value: float, given_range: tuple[float | None, float | None]
) -> None:
    low, high = given_range
    image = tensor_to_pil(torch.full((3, 2, 2), value), min_val=low, max_val=high)
    assert image.getextrema() == ((0, 0),) * 3


def test_a_mode_is_taken_if_the_channels_fit() -> None:
    assert tensor_to_pil(torch.rand(3, 2, 2), mode="YCbCr").mode == "YCbCr"
    assert tensor_to_pil(torch.rand(4, 2, 2, requires_grad=True)).mode == "RGBA"
    assert tensor_to_pil(torch.tensor([[True, False]])).tobytes() == b"\xff\x00"
    with pytest.raises(ValueError, match=r"3 channels make RGB or .*, not L"):
        tensor_to_pil(torch.rand(3, 2, 2), mode="L")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        *(
            (torch.zeros(shape), "an image is")
            for shape in [(5, 2, 2), (1, 1, 2, 2), (4,), (3, 0, 2)]
        ),
        *((torch.tensor([[0.0, float(value)]]), "finite") for value in ("nan", "inf")),
    ],
)
def test_what_is_no_image_is_refused(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tensor_to_pil(tensor)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_order_is_kept_whatever_the_range(values: list[float]) -> None:
    shades = [*tensor_to_pil(torch.tensor([values])).tobytes()]
    ranked = sorted(range(len(values)), key=values.__getitem__)
    assert all(shades[a] <= shades[b] for a, b in pairwise(ranked))
