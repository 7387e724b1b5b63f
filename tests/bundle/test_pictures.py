from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from triptych.bundle.pictures import is_image, png
from triptych.errors import InputError


@pytest.mark.parametrize(
    ("shape", "mode"), [((5, 4), "L"), ((1, 5, 4), "L"), ((3, 5, 4), "RGB"), ((4, 5, 4), "RGBA")]
)
def test_a_grid_holds_every_picture(shape, mode):
    images = np.linspace(0, 1, 3 * int(np.prod(shape)), dtype=np.float32).reshape(3, *shape)
    picture = Image.open(BytesIO(png(images, columns=2, gap=1)))
    assert (picture.mode, picture.size) == (mode, (2 * 4 + 1, 2 * 5 + 1))
    first = np.asarray(picture.crop((0, 0, 4, 5))).reshape(5, 4, -1).transpose(2, 0, 1)
    assert np.abs(first / 255 - images[0].reshape(-1, 5, 4)).max() <= 0.5 / 255 + 1e-6


def test_values_out_of_range_are_clipped_not_wrapped():
    picture = np.asarray(Image.open(BytesIO(png(np.array([[[[-1.0, 2.0, np.nan]]]], np.float32)))))
    assert picture.tolist() == [[0, 255, 0]]


def test_rows_of_numbers_are_no_picture():
    assert not is_image((7,))
    with pytest.raises(InputError):
        png(np.zeros((2, 7), np.float32))
