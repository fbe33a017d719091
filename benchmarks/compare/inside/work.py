"""What the services do for a request, in units of about a fifth of a millisecond of CPU each.

``units`` is how much, ``rows`` what the services and databases that were asked answered.
"""

import hashlib
import io
import json
import random
import re
import time
import zlib
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal

import jinja2
from PIL import Image

from benchmarks.compare.inside.stores import Row

# Content type and body.
Answer = tuple[str, bytes]
Work = Callable[[int, list[Row]], Answer]

_PAGE = jinja2.Environment(autoescape=True).from_string(
    "<!doctype html><title>{{ rows|length }} found</title>"
    "{% for part in range(units) %}<section><h2>{{ part + 1 }}</h2><ul>"
    "{% for row in rows[part * 12 % (rows|length or 1):][:12] %}<li id={{ row.id }}>"
    "{% for name, value in row.items() %}<b>{{ name }}</b> {{ value }} {% endfor %}</li>{% endfor %}"
    "</ul></section>{% endfor %}"
)
_RATES = {"EUR": "1", "USD": "1.0842", "GBP": "0.8571", "JPY": "163.21", "CHF": "0.9437", "SEK": "11.472"}
_WORD = re.compile(r"(?:@|https?://)?\w+")


def pages(units: int, rows: list[Row]) -> Answer:
    """A page with what was found, twelve in each section, and from the beginning again."""
    return "text/html", _PAGE.render(units=units, rows=rows).encode()


def records(units: int, rows: list[Row]) -> Answer:
    """What was found, packed and unpacked as for a cache or a log."""
    plain = json.dumps(rows)
    for _ in range(units):
        packed = zlib.compress(json.dumps(rows[:12]).encode(), 5)
        json.loads(zlib.decompress(packed))
    return _answer(json.loads(plain))


def prices(units: int, rows: list[Row]) -> Answer:
    """A list of prices in another currency, to the cent."""
    name = random.choice(list(_RATES))
    rate, cent = Decimal(_RATES[name]), Decimal("0.01")
    converted = [
        (Decimal(n) * rate + Decimal("0.99")).quantize(cent, ROUND_HALF_EVEN) for n in range(150 * units)
    ]
    return _answer([{"id": 0, "currency": name, "rate": float(rate), "sum": float(sum(converted))}])


def scores(units: int, rows: list[Row]) -> Answer:
    """The best of many by their features."""
    taste = [random.random() for _ in range(8)]
    best = max(
        (sum(a * b for a, b in zip(taste, ((n * f) % 97 / 97 for f in range(1, 9)), strict=True)), n)
        for n in range(60 * units)
    )
    return _answer([*rows[:5], {"id": best[1], "score": round(best[0], 3)}])


def passwords(units: int, rows: list[Row]) -> Answer:
    """A password is checked."""
    digest = hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 600 * units)
    return _answer([*rows[:3], {"id": 0, "session": digest.hex()}])


def texts(units: int, rows: list[Row]) -> Answer:
    """Mentions and links in a text, and how often each word is used."""
    counts: dict[str, int] = {}
    for word in _WORD.findall(
        "see http://example and @somebody, who has seen the whole of it twice " * 8 * units
    ):
        counts[word] = counts.get(word, 0) + 1
    return _answer([{"id": 0, "words": sum(counts.values()), "mentions": counts["@somebody"]}])


class Pictures:
    """A sheet of small pictures, five units each.

    Photographs are kept decoded, 470 KiB each, and go with the first request after half a second in which
    nobody asked for them: in a burst nearly all are kept.
    """

    COUNT, SIZE, SMALL, KEEP_S = 96, (400, 300), (80, 60), 0.5

    def __init__(self) -> None:
        noise = Image.effect_noise((self.SIZE[0] + self.COUNT, self.SIZE[1]), 60).convert("RGB")
        crops = (noise.crop((n, 0, n + self.SIZE[0], self.SIZE[1])) for n in range(self.COUNT))
        self._files = [_jpeg(crop) for crop in crops]
        self._kept: dict[int, tuple[float, Image.Image]] = {}

    def __call__(self, units: int, rows: list[Row]) -> Answer:
        count = max(1, units // 5)
        sheet = Image.new("RGB", (self.SMALL[0] * count, self.SMALL[1]))
        for n in range(count):
            # The first ones are asked for most.
            number = min(int(random.expovariate(3 / self.COUNT)), self.COUNT - 1)
            small = self._decoded(number).resize(self.SMALL, Image.Resampling.BILINEAR)
            sheet.paste(small, (n * self.SMALL[0], 0))
        return "image/jpeg", _jpeg(sheet)

    def _decoded(self, number: int) -> Image.Image:
        now = time.monotonic()
        for old in [n for n, (used_at, _) in self._kept.items() if used_at < now - self.KEEP_S]:
            del self._kept[old]
        _, picture = self._kept.get(number) or (now, Image.open(io.BytesIO(self._files[number])))
        picture.load()
        self._kept[number] = now, picture
        return picture


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def _answer(rows: list[Row]) -> Answer:
    return "application/json", json.dumps(rows).encode()


def work_of(service: str) -> Work:
    """Most services pass records on."""
    if service == "images":
        return Pictures()
    return _WORK.get(service, records)


_WORK: dict[str, Work] = {
    "frontend": pages,
    "gateway": pages,
    "currency": prices,
    "recommendation": scores,
    "rating": scores,
    "user": passwords,
    "text": texts,
}
