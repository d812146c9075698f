"""Self-contained web pages: templates of this package, pictures inline, nothing loaded from elsewhere."""

import base64
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

_TEMPLATES = Environment(
    loader=PackageLoader("autodrive.reporting", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Fill in a template; every value is escaped, so replies of models cannot become markup."""
    return _TEMPLATES.get_template(template).render(**values)


def inline_png(png: bytes) -> str:
    """A PNG as a data address for an `img` tag."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def inline_jpeg(image_HWC: NDArray[np.uint8], quality: int = 85) -> str:
    """An RGB picture (H, W, 3) as JPEG in a data address."""
    encoded, buffer = cv2.imencode(".jpg", image_HWC[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise ValueError(f"cannot encode a picture of shape {image_HWC.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.tobytes()).decode()
