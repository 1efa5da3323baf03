import base64
import io

from easyremote.bench.bare import inputs
from PIL import Image


def test_callers_send_the_same_sentences_and_photographs_in_each_run() -> None:
    texts = inputs("sentiment", 50)
    assert texts == inputs("sentiment", 50)
    assert all(4 <= len(text.split()) <= 24 for text in texts)
    (picture,) = inputs("image", 1)
    content = base64.b64decode(picture)
    assert Image.open(io.BytesIO(content)).size == (500, 375)
    assert 30_000 < len(content) < 70_000
