"""Pictures, opened safely whoever named them."""

from lmflow_multimodal.pictures.limits import PictureLimits
from lmflow_multimodal.pictures.opening import Picture, held_source, open_picture

__all__ = ["Picture", "PictureLimits", "held_source", "open_picture"]
