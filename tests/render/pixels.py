"""What a page looks like: the pixels of the picture that it is laid out as."""

from io import BytesIO

import numpy as np
from PIL import Image

from lightning_viz.render.page import lay_out
from lightning_viz.render.parts import Text


def raster(image):
    """PNG bytes as pixels ``[H, W, 3]``."""
    return np.asarray(Image.open(BytesIO(image)).convert("RGB"))


def decoded(page):
    """The pixels of a page, its header included."""
    return raster(lay_out(page).image)


def body(page):
    """The pixels below the header."""
    return raster(lay_out(page, header=False).image)


def fits(page, height=920):
    """Whether a page is as wide as all, and not higher than TensorBoard shows."""
    picture = lay_out(page)
    return picture.width == 700 and picture.height <= height


def texts(page):
    """The blocks of text in the body, each as one string, with their colors."""
    return [(" ".join(" ".join(text.lines).split()), text.color) for text in page.parts(Text)]
