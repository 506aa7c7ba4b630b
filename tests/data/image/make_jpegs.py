"""Writes jpeg/NAME.jpg and jpeg/pixels.txt: the size of each image and the sha256 of what Pillow makes of it (upright,
convert("RGB")). Every file has the same result in OpenCV, except CMYK, which OpenCV converts in another way. Needs Pillow,
OpenCV, simplejpeg (for 4:4:0 and 4:1:1) and numpy; written with Pillow 13.0.0, OpenCV 5.0.0 and simplejpeg 1.9.0."""

import hashlib
import io
import pathlib

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

OUT = pathlib.Path(__file__).parent / "jpeg"
rng = np.random.default_rng(1)


def image(width, height, kind):
    """Noise exceeds the range of a byte after the transform; edges show how colour planes are enlarged."""
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    if kind == "smooth":
        planes = [128 + 120 * np.sin(across / 7 + c) * np.cos(down / 9 - c) for c in range(3)]
        return np.stack(planes, -1).astype(np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]], np.uint8)
    return colours[(across // 5 + 2 * (down // 3)) % 6]


def pillow(pixels, mode="RGB", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


files = {}
SIZES = [(1, 1), (2, 3), (7, 5), (17, 9), (16, 16), (33, 48), (40, 31), (65, 63)]
for number, (width, height) in enumerate(SIZES):
    kind = ["noise", "smooth", "edges"][number % 3]
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        quality = [100, 95, 75, 30, 5][(number + subsampling) % 5]
        options = {"quality": quality, "subsampling": subsampling, "progressive": (number + subsampling) % 3 == 0}
        files[f"{name}_{width}x{height}"] = pillow(image(width, height, kind), **options)
for name in ("440", "411"):
    for width, height in ((33, 17), (50, 40)):
        pixels = np.ascontiguousarray(image(width, height, "edges"))
        files[f"{name}_{width}x{height}"] = simplejpeg.encode_jpeg(pixels, 80, colorspace="RGB", colorsubsampling=name)
for kind in ("noise", "smooth"):
    files[f"grey_{kind}"] = pillow(image(37, 29, kind), "L", quality=80)
    files[f"cmyk_{kind}"] = pillow(image(37, 29, kind), "CMYK", quality=80)
files["grey_progressive"] = pillow(image(37, 29, "edges"), "L", quality=60, progressive=True)
files["cmyk_progressive"] = pillow(image(37, 29, "edges"), "CMYK", quality=60, progressive=True)
files["rgb_planes"] = pillow(image(37, 29, "edges"), quality=90, keep_rgb=True)
files["optimized"] = pillow(image(64, 48, "smooth"), quality=85, optimize=True)
files["restarts"] = pillow(image(64, 48, "edges"), quality=85, restart_marker_blocks=2)
files["restarts_progressive"] = pillow(image(64, 48, "smooth"), quality=85, progressive=True, restart_marker_rows=1)
turned = Image.Exif()
turned[0x0112] = 6
files["turned_420"] = pillow(image(30, 21, "edges"), quality=85, exif=turned.tobytes())
files["with_comment"] = pillow(image(30, 21, "smooth"), quality=85, comment=b"text " * 40)

OUT.mkdir(exist_ok=True)
lines = []
for name, data in sorted(files.items()):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    if not name.startswith("cmyk"):
        other = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.array_equal(other, np.asarray(image)), name
    (OUT / f"{name}.jpg").write_bytes(data)
    lines.append(f"{hashlib.sha256(image.tobytes()).hexdigest()} {image.width} {image.height} {name}.jpg\n")
(OUT / "pixels.txt").write_text("".join(lines))
