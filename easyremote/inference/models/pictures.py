"""Turns what a caller sent into a picture, or says why it is none."""

from __future__ import annotations

import base64
import binascii
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from easyremote.errors import InvalidInput
from easyremote.settings import load_settings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_ASPECT", "MAX_PIXELS", "ByteBudget", "decode_picture", "decoded_picture"]

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; a few kB can unpack to more memory than a node has."""

MAX_ASPECT = 100
"""Of the longer side to the shorter: the shorter one is scaled to a model's 256 pixels, the longer one with it."""
_BYTES_PER_PIXEL = 12
"""What decoding takes at its peak: the picture as it is, upright, and as RGB."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


class ByteBudget:
    """Bounds what several threads have decoded at the same time; one picture alone is always let through.

    Parameters
    ----------
    most : int
        Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, and keep it until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._most)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


@cache
def _budget() -> ByteBudget:
    return ByteBudget(load_settings().picture_bytes)


@contextmanager
def decoded_picture(data: Any, budget: ByteBudget | None = None) -> Iterator[Image]:  # Any: a caller may send anything
    """Have a picture as RGB, upright, while the block runs; of an animation the first frame.

    What is decoded at the same time, on whichever threads, is bounded by `EASYREMOTE_PICTURE_BYTES`: the others wait.

    Parameters
    ----------
    data : str or bytes
        A JPEG, PNG, WebP, GIF, BMP or TIFF file, as bytes or as base64 text.

    Raises
    ------
    InvalidInput
        If it is of another type, no base64, no such file, truncated, of more than `MAX_PIXELS` pixels, or so narrow
        that it would be large once its short side is scaled up.
    """
    content = _bytes(data)
    with _readable(content):
        picture = _opened(content)
    _refuse_large(*picture.size)
    with (budget or _budget()).taken(picture.width * picture.height * _BYTES_PER_PIXEL):
        with _readable(content):
            upright = _rgb(picture)
        yield upright


def decode_picture(data: Any) -> Image:  # Any: a caller may send anything
    """Return a picture as `decoded_picture` has it."""
    with decoded_picture(data) as picture:
        return picture


@contextmanager
def _readable(content: bytes) -> Iterator[None]:
    from PIL import UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as error:
        raise InvalidInput(f"{len(content)} bytes that are no {', '.join(_FORMATS)} picture") from error
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything, struct.error to KeyError
        raise InvalidInput(f"a picture of {len(content)} bytes that cannot be read: {error}") from error


def _opened(content: bytes) -> Image:
    from PIL import Image as Pillow

    return Pillow.open(io.BytesIO(content), formats=_FORMATS)


def _refuse_large(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidInput(f"a picture of {width} x {height} pixels is above the limit of {MAX_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidInput(
            f"a picture of {width} x {height} pixels has one side more than {MAX_ASPECT} times the other: cut it"
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
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I;16", "I", "I;16B"):
        # Sixteen bits of grey: the upper eight are what a screen would show; convert() would clip instead.
        picture = picture.convert("I").point(lambda level: level / 257).convert("L")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
        upper = picture.convert("RGBA")
        ground = Pillow.new("RGBA", upper.size, "white")
        return Pillow.alpha_composite(ground, upper).convert("RGB")
    return picture.convert("RGB")
