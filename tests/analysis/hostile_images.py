"""Image files as somebody who means no good would write them, each with what comes of it when it is read."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

READ = ""  # what comes of a file that is an image


@dataclass(frozen=True)
class Hostile:
    """A file.

    Attributes:
        suffix: of its name.
        content: of the file, made when it is asked for.
        outcome: a pattern in the refusal; `READ` where there is none.
        large: whether it takes long to make or to read.
    """

    suffix: str
    content: Callable[[], bytes]
    outcome: str = READ
    large: bool = False


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise(width, height, mode="RGB"):
    """An image that is not flat, made of one line."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    line = np.random.default_rng(0).integers(0, 256, (1, width, bands), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), np.broadcast_to(line, (height, width, bands)).tobytes())


def png(width, height, *, bits=8, color=2, data=b"", chunks=b""):
    """A PNG file with this header, whatever its data."""
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count):
    """So many zeros, deflated."""
    deflate = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join(deflate.compress(block) for _ in range(count // 2**20)) + deflate.flush()


def many_scans(side, count):
    """A progressive JPEG with its first scan many times over."""
    whole = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    first = whole.index(b"\xff\xda")
    second = whole.index(b"\xff\xc4", first) if b"\xff\xc4" in whole[first:] else whole.index(b"\xff\xda", first + 2)
    return whole[:second] + whole[first:second] * count + whole[second:]


def bmp_of_runs(width, height):
    """A BMP of runs of one pixel each."""
    line = b"\x01\x00" * width + b"\x00\x00"
    data = line * height + b"\x00\x01"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + head + bytes(1024) + data


def tiff(width, height, following=0):
    """A TIFF file of one gray strip with this header, and the place of what follows its directory."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, 16)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + struct.pack("<H", len(tags)) + entries + struct.pack(
        "<I", following
    )  # fmt: skip


def rotated():
    image = Image.new("RGB", (8, 12), (200, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def broken_exif():
    return encoded(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x12\x01\x03\0")


def palette(width=8, height=8):
    image = noise(width, height, "L").convert("P")
    return encoded(image, "PNG", transparency=bytes(range(256)))


def frames(form, **options):
    several = [Image.new("RGB", (8, 8), (80 * number, 0, 0)) for number in range(1, 4)]
    return encoded(several[0], form, save_all=True, append_images=several[1:], **options)


def cut(content, share=0.5):
    return content[: int(share * len(content))]


def huge_gif():
    return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + cut(encoded(noise(8, 8, "L"), "GIF"), 0.9)[13:]


def gif_beyond_its_screen():
    small = bytearray(encoded(Image.new("L", (8, 8)), "GIF"))
    place = small.index(b",", 13)
    small[place + 5 : place + 9] = struct.pack("<HH", 60000, 60000)
    return bytes(small)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(touched) (w) file closefile
showpage
%%EOF
"""
NO_IMAGE = "cannot be read as an image: no image of JPEG, PNG"
BAD = "cannot be read as an image: "
LARGE = r"is not read: it has ([\d,]+ x [\d,]+ pixels, )?more than 40,000,000"

IMAGES = {
    "plain": Hostile(".png", lambda: encoded(noise(8, 8), "PNG")),
    "JPEG named .png": Hostile(".png", lambda: encoded(noise(8, 8), "JPEG")),
    "gray of 16 bits": Hostile(".png", lambda: encoded(Image.fromarray(np.full((8, 8), 2**15, np.uint16)), "PNG")),
    "color of 16 bits": Hostile(".png", lambda: png(8, 8, bits=16, data=zlib.compress(bytes(8 * 49)))),
    "CMYK": Hostile(".jpg", lambda: encoded(noise(8, 8, "CMYK"), "JPEG")),
    "palette with transparency": Hostile(".png", palette),
    "gray with alpha": Hostile(".png", lambda: encoded(noise(8, 8, "LA"), "PNG")),
    "one bit": Hostile(".png", lambda: encoded(Image.new("1", (8, 8)), "PNG")),
    "turned by EXIF": Hostile(".jpg", rotated),
    "broken EXIF": Hostile(".jpg", broken_exif),
    "animated GIF": Hostile(".gif", lambda: frames("GIF")),
    "animated PNG": Hostile(".png", lambda: frames("PNG")),
    "animated WebP": Hostile(".webp", lambda: frames("WEBP", lossless=True)),
    "TIFF of several pages": Hostile(".tif", lambda: frames("TIFF")),
    "TIFF that follows itself": Hostile(".tif", lambda: tiff(4, 4, following=24)),
    "1 x 1,000,000": Hostile(".png", lambda: encoded(Image.new("L", (1, 1_000_000)), "PNG"), "longer than 30,000"),
    "1,000,000 x 1": Hostile(".png", lambda: encoded(Image.new("L", (1_000_000, 1)), "PNG"), "longer than 30,000"),
    "2 x 20,000": Hostile(".png", lambda: encoded(Image.new("L", (2, 20_000)), "PNG"), "more than 64 times"),
    "PNG that declares 60,000 x 60,000": Hostile(".png", lambda: png(60_000, 60_000), LARGE),
    "PNG that declares 2^31 x 2^31": Hostile(".png", lambda: png(2**31 - 1, 2**31 - 1), LARGE),
    "BMP that declares 2^30 x 3": Hostile(
        ".bmp", lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 3, 1, 24, 0, 0, 0, 0, 0, 0),
        LARGE,
    ),
    "GIF that declares 65,535 x 65,535": Hostile(".gif", huge_gif, LARGE),
    "GIF larger than its screen": Hostile(".gif", gif_beyond_its_screen, LARGE),
    "TIFF that declares 2^31 x 2^31": Hostile(".tif", lambda: tiff(2**31, 2**31), LARGE),
    "PPM that declares 10^6 x 10^6": Hostile(".ppm", lambda: b"P6 1000000 1000000 255\n", LARGE),
    "PPM that declares 10^5000": Hostile(".ppm", lambda: b"P6 1" + b"0" * 5000 + b" 8 255\n", BAD),
    "PPM in words, 1 Mpx": Hostile(".ppm", lambda: b"P2 1000 1000 9\n" + b"1 " * 1_000_000, "takes long"),
    "BMP of runs, 1 Mpx": Hostile(".bmp", lambda: bmp_of_runs(1000, 1000), "takes long"),
    "JPEG of 200 scans": Hostile(".jpg", lambda: many_scans(64, 200), "JPEG of 2.. scans"),
    "text chunk that inflates to 64 MB": Hostile(
        ".png", lambda: png(8, 8, chunks=chunk(b"zTXt", b"a\0\0" + zeros(2**26)), data=zlib.compress(bytes(200))),
        f"{BAD}Decompressed data too large",
    ),
    "data that inflate to 64 MB": Hostile(".png", lambda: png(8, 8, data=zeros(2**26))),
    "cut PNG": Hostile(".png", lambda: cut(encoded(noise(64, 64), "PNG")), BAD),
    "cut JPEG": Hostile(".jpg", lambda: cut(encoded(noise(64, 64), "JPEG"), 0.8), BAD),
    "cut GIF": Hostile(".gif", lambda: cut(encoded(noise(64, 64, "L"), "GIF")), BAD),
    "cut WebP": Hostile(".webp", lambda: cut(encoded(noise(64, 64), "WEBP", lossless=True)), BAD),
    "cut BMP": Hostile(".bmp", lambda: cut(encoded(noise(64, 64), "BMP")), BAD),
    "cut TIFF": Hostile(".tif", lambda: cut(encoded(noise(64, 64), "TIFF")), BAD),
    "no bytes": Hostile(".png", lambda: b"", NO_IMAGE),
    "text": Hostile(".png", lambda: b"step,loss\n1,0.5\n", NO_IMAGE),
    "page": Hostile(".png", lambda: b"<html><script>alert(1)</script></html>", NO_IMAGE),
    "EPS named .png": Hostile(".png", lambda: EPS, NO_IMAGE),
    "PDF named .jpg": Hostile(".jpg", lambda: encoded(noise(8, 8), "PDF"), NO_IMAGE),
    "icon named .png": Hostile(".png", lambda: encoded(noise(16, 16), "ICO"), NO_IMAGE),
    "TGA named .png": Hostile(".png", lambda: encoded(noise(8, 8), "TGA"), NO_IMAGE),
    "SGI named .png": Hostile(".png", lambda: encoded(noise(8, 8), "SGI"), NO_IMAGE),
    "real numbers": Hostile(".tif", lambda: encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), BAD),
    "gray of 31 bits": Hostile(".tif", lambda: encoded(Image.new("I", (8, 8), 2**30), "TIFF"), BAD),
    "PNG, 36 Mpx": Hostile(".png", lambda: encoded(noise(6000, 6000), "PNG", compress_level=1), large=True),
    "PNG with alpha, 36 Mpx": Hostile(
        ".png", lambda: encoded(noise(6000, 6000, "RGBA"), "PNG", compress_level=1), large=True
    ),
    "palette with transparency, 36 Mpx": Hostile(".png", lambda: palette(6000, 6000), large=True),
    "gray of 32 bits, 36 Mpx": Hostile(
        ".tif", lambda: encoded(Image.new("I", (6000, 6000), 2**12), "TIFF"), large=True
    ),
    "1 : 64, 25 Mpx": Hostile(".png", lambda: encoded(Image.new("RGB", (625, 30_000)), "PNG"), large=True),
    "1 : 64, scaled up": Hostile(".png", lambda: encoded(Image.new("RGB", (4, 256)), "PNG"), large=True),
    "gray of 16 bits, 36 Mpx": Hostile(
        ".png", lambda: encoded(Image.fromarray(np.ones((6000, 6000), np.uint16)), "PNG", compress_level=1), large=True
    ),
    "JPEG, 36 Mpx": Hostile(".jpg", lambda: encoded(noise(6000, 6000), "JPEG"), large=True),
    "JPEG of 9 scans, 36 Mpx": Hostile(
        ".jpg", lambda: encoded(noise(6000, 6000), "JPEG", progressive=True), large=True
    ),
    "JPEG of 64 scans, 36 Mpx": Hostile(".jpg", lambda: many_scans(6000, 56), large=True),
    "CMYK, 36 Mpx": Hostile(".jpg", lambda: encoded(noise(6000, 6000, "CMYK"), "JPEG"), large=True),
    "WebP, 24 Mpx": Hostile(".webp", lambda: encoded(noise(6000, 4000), "WEBP", method=0), large=True),
    "WebP, 36 Mpx": Hostile(
        ".webp", lambda: encoded(noise(6000, 6000), "WEBP", method=0), "for WebP more than 24,000,000", large=True
    ),
    "TIFF, 36 Mpx": Hostile(".tif", lambda: encoded(noise(6000, 6000), "TIFF"), large=True),
    "PPM in words, 0.5 Mpx": Hostile(".ppm", lambda: b"P3 1000 500 9\n" + b"1 " * 1_500_000, large=True),
    "BMP of runs, 0.5 Mpx": Hostile(".bmp", lambda: bmp_of_runs(1000, 500), large=True),
    "data that inflate to 4 GB": Hostile(".png", lambda: png(8, 8, data=zeros(2**32)), large=True),
    "GIF of 100,000 frames": Hostile(
        ".gif", lambda: encoded(Image.new("L", (8, 8)), "GIF")[:-1] + GIF_FRAME * 100_000 + b";", large=True
    ),
    "PNG of 300 MB": Hostile(
        ".png", lambda: png(8, 8, chunks=chunk(b"eXIf", bytes(300 * 2**20))), "bytes, more than", large=True
    ),
}  # fmt: skip
GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02\x02\x4c\x01\x00"
