"""Writes pillow/NAME.EXT and what Pillow makes of each (upright, convert("RGB")) as pillow/NAME.EXT.rgb.png,
and broken/*: files that must be refused. Needs Pillow 12 and numpy."""

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
W, H = 13, 9
rng = np.random.default_rng(1)
noise = rng.integers(0, 256, (H, W, 4), dtype=np.uint8)
rgba, rgb, grey = Image.fromarray(noise), Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0])
across, down = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 40))
smooth = Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))
palette = rgb.quantize(11)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour, depth, rows, extra=b"", size=(W, H)):
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    data = b"".join(b"\0" + bytes(r) for r in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def random_rows(bits_a_pixel, width=W):
    return [rng.integers(0, 256, (width * bits_a_pixel + 7) // 8, dtype=np.uint8).tobytes() for _ in range(H)]


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


files = {
    "rgb.png": saved(rgb, "PNG"),
    "rgba.png": saved(rgba, "PNG"),
    "grey.png": saved(grey, "PNG"),
    "grey_alpha.png": saved(rgba.convert("LA"), "PNG"),
    "one_bit.png": saved(grey.convert("1"), "PNG"),
    "palette.png": saved(palette, "PNG"),
    "palette_transparent.png": saved(palette, "PNG", transparency=3),
    "palette_alpha.png": saved(palette, "PNG", transparency=bytes([0, 255, 128] * 3)),
    "grey_transparent.png": saved(grey, "PNG", transparency=int(noise[0, 0, 0])),
    "rgb_transparent.png": saved(rgb, "PNG", transparency=tuple(int(v) for v in noise[0, 0, :3])),
    "orientation_6.png": saved(rgb, "PNG", exif=exif(6)),
    "rgb.bmp": saved(rgb, "BMP"),
    "rgba.bmp": saved(rgba, "BMP"),
    "grey.bmp": saved(grey, "BMP"),
    "palette.bmp": saved(palette, "BMP"),
    "one_bit.bmp": saved(grey.convert("1"), "BMP"),
    "palette.gif": saved(palette, "GIF"),
    "transparent.gif": saved(palette, "GIF", transparency=5),
    "animated.gif": saved(palette, "GIF", save_all=True, append_images=[rgb.transpose(0).quantize(7)], duration=50),
    "rgb.tif": saved(rgb, "TIFF"),
    "rgba.tif": saved(rgba, "TIFF"),
    "grey.tif": saved(grey, "TIFF"),
    "lzw.tif": saved(rgb, "TIFF", compression="tiff_lzw"),
    "deflate.tif": saved(rgb, "TIFF", compression="tiff_adobe_deflate"),
    "packbits.tif": saved(grey, "TIFF", compression="packbits"),
    "one_bit.tif": saved(grey.convert("1"), "TIFF"),
    "two_pages.tif": saved(rgb, "TIFF", save_all=True, append_images=[rgb.transpose(0)]),
    "lossless.webp": saved(rgb, "WEBP", lossless=True, exact=True),
    "lossless_alpha.webp": saved(rgba, "WEBP", lossless=True, exact=True),
    "animated.webp": saved(rgb, "WEBP", save_all=True, append_images=[rgb.transpose(0)], lossless=True),
    "lossy.webp": saved(smooth, "WEBP", quality=95),
    "orientation_3.webp": saved(rgb, "WEBP", lossless=True, exact=True, exif=exif(3)),
    "grey.jpg": saved(smooth.convert("L"), "JPEG", quality=95),
    "progressive.jpg": saved(smooth, "JPEG", quality=95, progressive=True),
    "cmyk.jpg": saved(smooth.convert("CMYK"), "JPEG", quality=95),
}
for depth in (2, 4):
    files[f"grey_{depth}_bit.png"] = png(0, depth, random_rows(depth))
for colour, name, channels in ((0, "grey", 1), (2, "rgb", 3), (4, "grey_alpha", 2), (6, "rgba", 4)):
    files[f"{name}_16_bit.png"] = png(colour, 16, random_rows(16 * channels))
files["rgb_16_bit_transparent.png"] = png(2, 16, random_rows(48), chunk(b"tRNS", bytes(6)))
for orientation in range(1, 9):
    files[f"orientation_{orientation}.jpg"] = saved(smooth, "JPEG", quality=95, subsampling=0, exif=exif(orientation))

for name, data in files.items():
    (HERE / "pillow" / name).write_bytes(data)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    image.save(HERE / "pillow" / f"{name}.rgb.png")

bad_crc = bytearray(files["rgb.png"])
bad_crc[-20] ^= 1
broken = {
    "empty.png": b"",
    "text.png": b"<html>not an image</html>",
    "truncated.png": files["rgb.png"][:200],
    "bad_crc.png": bytes(bad_crc),
    "truncated.jpg": files["progressive.jpg"][: len(files["progressive.jpg"]) // 2],
    "header_only.jpg": files["grey.jpg"][:20],
    "truncated.webp": files["lossless.webp"][:150],
    "truncated.gif": files["palette.gif"][:100],
    "truncated.tif": files["rgb.tif"][:120],
    "truncated.bmp": files["rgb.bmp"][:120],
    "no_pixels.png": png(2, 8, [], size=(0, 0)),
    "huge.png": png(0, 1, [], size=(60000, 60000)),
    "wide.png": png(0, 1, [bytes(9000)], size=(72000, 1)),
}
for name, data in broken.items():
    (HERE / "broken" / name).write_bytes(data)
