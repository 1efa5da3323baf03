import base64
import io
import threading

import pytest
from easyremote.errors import InvalidInput
from easyremote.inference.models import pictures
from easyremote.inference.models.pictures import ByteBudget, decode_picture, decoded_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile


def _file(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


_NOISE = Image.effect_noise((24, 16), 90).convert("RGB")
_SOUND = [_file(_NOISE, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]


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


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("LAB", "TIFF"), ("1", "PNG"), ("F", "TIFF"), ("LA", "PNG")]
)
def test_every_mode_becomes_rgb(mode: str, form: str) -> None:
    picture = decode_picture(_file(Image.new(mode, (5, 4)), form))
    assert (picture.mode, picture.size) == ("RGB", (5, 4))


@pytest.mark.parametrize("side", [8_000, 9_500, 14_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_unpacked(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = _file(Image.new("1", (side, side)))
    assert len(bomb) < 60_000
    unpacked: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", unpacked.append)
    with pytest.raises(InvalidInput, match=r"8000 x 8000 pixels|9500 x 9500 pixels|196000000 pixels"):
        decode_picture(bomb)
    assert unpacked == []


@given(data=st.data())
def test_a_damaged_file_is_an_input_error_and_never_another(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(_SOUND)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        mode = decode_picture(bytes(content[:cut])).mode
    except InvalidInput:
        mode = "RGB"
    assert mode == "RGB"


def test_a_picture_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 15)
    with pytest.raises(InvalidInput, match="4 x 4 pixels"):
        decode_picture(_file(Image.new("RGB", (4, 4))))


def test_a_narrow_picture_that_would_become_large_is_refused() -> None:
    thin = _file(Image.new("L", (12_000, 1)))
    assert len(thin) < 200
    with pytest.raises(InvalidInput, match="12000 x 1 pixels has one side more than 100 times the other"):
        decode_picture(thin)
    assert decode_picture(_file(Image.new("L", (1_200, 12)))).size == (1_200, 12)


def test_what_is_decoded_at_once_is_bounded_and_one_alone_is_let_through() -> None:
    budget = ByteBudget(100 * 12)
    small, large = _file(Image.new("L", (10, 6))), _file(Image.new("L", (50, 50)))
    with decoded_picture(large, budget):
        pass
    entered, leave, came = threading.Event(), threading.Event(), []

    def decode(data: bytes) -> None:
        with decoded_picture(data, budget) as picture:
            came.append(picture.size)
            entered.set()
            assert leave.wait(10)

    threads = [threading.Thread(target=decode, args=(small,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    assert len(came) == 1
    leave.set()
    for thread in threads:
        thread.join(10)
    assert len(came) == 3
