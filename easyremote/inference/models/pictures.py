"""Turns what a caller sent into a picture, or says why it is none."""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any

from easyremote.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "decode_picture"]

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; a few kB can unpack to more memory than a node has."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode_picture(data: Any) -> Image:  # Any: a caller may send anything
    """Return a picture as RGB, upright; of an animation the first frame.

    Parameters
    ----------
    data : str or bytes
        A JPEG, PNG, WebP, GIF, BMP or TIFF file, as bytes or as base64 text.

    Raises
    ------
    InvalidInput
        If it is of another type, no base64, no such file, truncated, or of more than `MAX_PIXELS` pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    content = _bytes(data)
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
        if picture.width * picture.height <= MAX_PIXELS:
            return _rgb(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise InvalidInput(f"{len(content)} bytes that are no {', '.join(_FORMATS)} picture") from error
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything, struct.error to KeyError
        raise InvalidInput(f"a picture of {len(content)} bytes that cannot be read: {error}") from error
    raise InvalidInput(
        f"a picture of {picture.width} x {picture.height} pixels is above the limit of {MAX_PIXELS} pixels"
    )


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"text of {len(data)} characters that is no base64: {error}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidInput(f"a picture is base64 text or bytes, not {type(data).__name__}")
    content = bytes(data)
    if not content:
        raise InvalidInput("a picture of 0 bytes")
    return content


def _rgb(picture: Image) -> Image:
    from PIL import Image as Pillow

    if picture.mode in ("I;16", "I", "I;16B"):
        # Sixteen bits of grey: the upper eight are what a screen would show; convert() would clip instead.
        picture = picture.convert("I").point(lambda level: level / 257).convert("L")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
        upper = picture.convert("RGBA")
        ground = Pillow.new("RGBA", upper.size, "white")
        return Pillow.alpha_composite(ground, upper).convert("RGB")
    return picture.convert("RGB")
