import base64
import io

import pytest
from easyremote.errors import InvalidInput
from easyremote.inference.models import pictures
from easyremote.inference.models.pictures import decode_picture
from PIL import Image


def _file(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def test_base64_text_and_bytes_give_the_same_picture() -> None:
    content = _file(Image.new("RGB", (4, 3), (10, 20, 30)))
    for data in (content, base64.b64encode(content).decode()):
        picture = decode_picture(data)
        assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (4, 3), (10, 20, 30))


def test_sixteen_bits_keep_their_brightness() -> None:
    grey = decode_picture(_file(Image.new("I;16", (2, 2), 0x8080))).getpixel((0, 0))
    assert grey == (128, 128, 128)


def test_cmyk_is_converted_and_transparency_is_white() -> None:
    assert decode_picture(_file(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "JPEG")).getpixel((0, 0)) == (255, 255, 255)
    assert decode_picture(_file(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9])
    assert decode_picture(_file(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_a_rotated_photograph_is_upright_and_an_animation_is_its_first_frame() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(_file(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).size == (2, 4)
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    assert decode_picture(_file(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == (
        255,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "not int"),
        (None, "not NoneType"),
        ("%%%", "no base64"),
        (b"", "0 bytes"),
        (b"hello", "5 bytes"),
        (_file(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")[:400], "cannot be read"),
    ],
)
def test_what_is_no_picture_is_named(data: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        decode_picture(data)


def test_a_picture_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 15)
    with pytest.raises(InvalidInput, match="4 x 4 pixels"):
        decode_picture(_file(Image.new("RGB", (4, 4))))
