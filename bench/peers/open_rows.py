"""Opens parquet files written by omr with Hugging Face `datasets` and with pandas. Counts rows and decodes the images.

usage: omr data format CONFIG --out DIR images=embed
       python bench/peers/open_rows.py DIR/NAME.parquet...
"""
import io
import sys
import tempfile

import datasets
import pandas
from PIL import Image

datasets.disable_progress_bars()
for path in sys.argv[1:]:
    with tempfile.TemporaryDirectory() as cache:
        opened = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=cache)
        feature = opened.features.get("images")
        kind = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
        images = [image for row in opened for image in row.get("images") or []]
        shown = sum(isinstance(image, Image.Image) and image.load() is not None for image in images)
        print(f"{path}: datasets {datasets.__version__}: {len(opened)} rows, columns {', '.join(opened.column_names)}")
        print(f"  images are {kind}: {shown} of {len(images)} are images")
        frame = pandas.read_parquet(path)
        cells = [cell for cells in frame.get("images", []) if cells is not None for cell in cells]
        read = sum(Image.open(io.BytesIO(cell["bytes"])).size > (0, 0) for cell in cells if cell["bytes"])
        print(f"  pandas {pandas.__version__}: {len(frame)} rows, {read} of {len(cells)} images open")
        if not shown == len(images) == read == len(cells) or len(frame) != len(opened):
            sys.exit(f"{path}: not every image opens")
