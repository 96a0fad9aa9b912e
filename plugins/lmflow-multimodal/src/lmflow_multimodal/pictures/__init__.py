"""Pictures, opened safely whoever named them."""

from lmflow_multimodal.pictures.limits import PictureLimits
from lmflow_multimodal.pictures.opening import Picture, open_picture

__all__ = ["Picture", "PictureLimits", "open_picture"]
