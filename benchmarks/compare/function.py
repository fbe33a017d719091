"""What runs in a serverless container: it dials the invoker and takes jobs until the connection ends.

    python3 function.py SOCKET

Needs Python and Pillow only.  It says its host name; a job is a line of JSON and as many bytes as that
names, and so is an answer.  The image job is that of ImageProcess (ServerlessBench, test case 4): decode a
photograph, read what it says of itself, filter and scale it, encode the results.  The grid job is one point
of a search for the best parameters of a model.
"""

import io
import json
import math
import random
import socket
import sys
from typing import Any

from PIL import Image, ImageChops, ImageFilter

Job = dict[str, Any]

# As in ImageProcess, and what a page shows beside the thumbnail.
THUMBNAIL = (250, 250)
PREVIEW = (1600, 1600)
ROWS, COLUMNS = 400, 12


def image(job: Job, payload: bytes) -> tuple[Job, bytes]:
    """The preview; its answer tells what was found in the photograph."""
    with Image.open(io.BytesIO(payload)) as opened:
        about = {"format": opened.format, "width": opened.width, "height": opened.height}
        about["exif"] = len(opened.getexif())
        full = opened.convert("RGB")
    sharp = full.filter(ImageFilter.UnsharpMask(radius=2))
    sharp.thumbnail(PREVIEW, Image.Resampling.LANCZOS)
    preview, thumbnail = io.BytesIO(), io.BytesIO()
    sharp.save(preview, "JPEG", quality=85, optimize=True)
    sharp.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    sharp.save(thumbnail, "JPEG", quality=75)
    return about | {"thumbnail": len(thumbnail.getvalue())}, preview.getvalue()


def grid(job: Job, payload: bytes) -> tuple[Job, bytes]:
    """Logistic regression by gradient descent with ``rate`` and ``penalty``; its loss."""
    dice = random.Random(1)
    truth = [dice.gauss(0, 1) for _ in range(COLUMNS)]
    rows = [[dice.gauss(0, 1) for _ in range(COLUMNS)] for _ in range(ROWS)]
    labels = [sum(map(float.__mul__, row, truth)) + dice.gauss(0, 1) > 0 for row in rows]
    weights, loss = [0.0] * COLUMNS, 0.0
    for _ in range(job["rounds"]):
        gradient, loss = [job["penalty"] * weight for weight in weights], 0.0
        for row, label in zip(rows, labels, strict=True):
            p = 1 / (1 + math.exp(-sum(map(float.__mul__, row, weights))))
            loss -= math.log(max(p if label else 1 - p, 1e-9)) / ROWS
            gradient = [g + (p - label) * x / ROWS for g, x in zip(gradient, row, strict=True)]
        weights = [weight - job["rate"] * g for weight, g in zip(weights, gradient, strict=True)]
    return {"loss": loss}, b""


def photograph(job: Job, payload: bytes) -> tuple[Job, bytes]:
    """A JPEG of ``width`` times ``height`` with shapes, shades and grain: there is no camera here."""
    size = job["width"], job["height"]
    shapes = Image.effect_mandelbrot(size, (-2.0, -1.2, 0.8, 1.2), 100)
    shades = Image.radial_gradient("L").resize(size)
    grain = Image.effect_noise(size, 24)
    bands = [ImageChops.add(band, grain, scale=2) for band in (shapes, shades, ImageChops.invert(shapes))]
    file = io.BytesIO()
    Image.merge("RGB", bands).save(file, "JPEG", quality=90)
    return {}, file.getvalue()


JOBS = {"image": image, "grid": grid, "photograph": photograph}


def main(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        with connection.makefile("rwb") as stream:
            stream.write(f"{socket.gethostname()}\n".encode())
            stream.flush()
            while line := stream.readline():
                job = json.loads(line)
                about, result = JOBS[job["kind"]](job, stream.read(job["size"]))
                stream.write(json.dumps(about | {"size": len(result)}).encode() + b"\n" + result)
                stream.flush()


if __name__ == "__main__":
    main(sys.argv[1])
