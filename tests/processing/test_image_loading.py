import base64
import io
import os
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fusionvl.processing.image_loading import FORMATS, MAX_PIXELS, load_image

WHITE, RED = (255, 255, 255), (255, 0, 0)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def red_png() -> bytes:
    return encoded(Image.new("RGB", (3, 2), RED))


def test_every_kind_of_source_gives_the_same_image(red_png, tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(red_png)
    uri = "data:image/png;base64," + base64.b64encode(red_png).decode()
    sources = [path, str(path), red_png, bytearray(red_png), uri, io.BytesIO(red_png), Image.open(path)]
    for source in sources:
        image = load_image(source)
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), RED)


@pytest.mark.parametrize("form", FORMATS)
def test_formats_that_are_read(form):
    assert load_image(encoded(Image.new("RGB", (8, 8), RED), form)).size == (8, 8)


@pytest.mark.parametrize("form", ["PCX", "TGA", "ICO", "SGI", "DDS", "ICNS", "MSP"])
def test_formats_that_are_not(form):
    """PIL reads them, with decoders that nobody looks after."""
    mode = "1" if form == "MSP" else "RGB"
    content = encoded(Image.new(mode, (16, 16)), form)
    assert Image.open(io.BytesIO(content)).format == form
    with pytest.raises(ValueError, match="it is in none of the formats AVIF, BMP, GIF, JPEG"):
        load_image(content)


def test_bytes_that_pass_for_a_format_far_from_their_beginning():
    """PIL knows Photo CD by bytes at 2,048, behind whatever a server's check may have seen at the beginning."""
    content = b"RIFF\x00\x00\x00\x00WEBP".ljust(2048, b"\0") + b"PCD_".ljust(800_000, b"\0")
    assert Image.open(io.BytesIO(content)).format == "PCD"
    with pytest.raises(ValueError, match="it is in none of the formats"):
        load_image(content)


def test_what_is_no_ordinary_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="it is not an ordinary file"):
            load_image(path)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "RGBa", "La", "CMYK", "YCbCr", "HSV", "I;16", "I"]
)
def test_every_mode_becomes_rgb(mode):
    image = load_image(Image.new(mode, (1, 1)))
    assert (image.mode, image.size) == ("RGB", (1, 1))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparency_lies_on_white(mode):
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0)).convert("RGBA")
    clear.putpixel((1, 0), (0, 0, 0, 255))
    image = load_image(clear.convert(mode) if mode != "PA" else clear.convert("P").convert("PA"))
    if mode != "PA":
        assert image.getpixel((0, 0)) == WHITE
        assert image.getpixel((1, 0)) == (0, 0, 0)


def test_half_transparent_black_on_white_is_grey():
    assert load_image(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


def test_palette_with_transparent_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    content = encoded(image, transparency=0)
    assert [load_image(content).getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 255, 0)]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bit_grey_is_scaled(dtype):
    values = np.array([[0, 257, 32896, 65535]], dtype=dtype)
    image = load_image(Image.fromarray(values))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_png_file():
    content = encoded(Image.fromarray(np.full((2, 2), 65535, dtype=np.uint16)))
    assert load_image(content).getpixel((0, 0)) == WHITE


def test_cmyk_jpeg():
    image = load_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(np.asarray(image)[4, 4].astype(int) - RED).max() <= 4


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    assert load_image(encoded(image, "JPEG", exif=exif)).size == (2, 4)


def test_the_given_image_is_left_alone():
    image = Image.new("RGBA", (2, 2), (1, 2, 3, 4))
    load_image(image)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (1, 2, 3, 4))


def test_extreme_shapes():
    for size in [(1, 1), (20000, 1), (1, 20000)]:
        assert load_image(encoded(Image.new("L", size))).size == size


def test_a_photo_with_a_preview_is_not_an_animation():
    content = encoded(Image.new("RGB", (8, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert load_image(content).size == (8, 8)


def animation() -> bytes:
    frames = [Image.new("L", (4, 4), value) for value in (0, 100, 200)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def bomb(side: int) -> bytes:
    """A PNG that claims side x side pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"%PDF-1.4 not an image", "in none of the formats"),
        (encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:600], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50))[:300], "truncated"),
        (animation(), "3 frames"),
        (bomb(8100), f"the limit is {MAX_PIXELS}"),
        (bomb(20000), "decompression bomb|limit"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "floating point"),
    ],
)
def test_unusable_content_names_source_and_reason(content, reason, tmp_path):
    with warnings.catch_warnings(action="ignore"):
        with pytest.raises(ValueError, match=f"(?i){reason}") as error:
            load_image(content)
        assert "<bytes>" in str(error.value)
        path = tmp_path / "bad.bin"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"(?i){reason}") as error:
            load_image(path)
        assert str(path) in str(error.value)


def test_integer_pixels_out_of_range():
    with pytest.raises(ValueError, match=r"range from -1 to 70000, expected 0 to 65535"):
        load_image(Image.fromarray(np.array([[-1, 70000]], dtype=np.int32)))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/file.png", "no such file"),
        ("https://example.org/cat.png", "download the image"),
        ("data:image/png;base64,@@@", "base64 content is broken"),
        ("data:image/png,abc", "must read data:"),
        ("A" * 100_000, r"^cannot use A{300}\.\.\. as an image: .{1,100}"),
        ("null\0byte.png", "null"),
        (12, "got int"),
        (None, "got NoneType"),
        (Image.new("RGB", (0, 3)), "no pixels"),
    ],
)
def test_unusable_sources(source, reason):
    with pytest.raises(ValueError, match=reason):
        load_image(source)


def test_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_image(tmp_path)
