"""Hosts, URLs and alt texts of a generated dataset."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_FRONTS = ("www", "cdn", "img1", "img2", "static", "media", "i", "assets")
_STEMS = ("garden", "photo", "shop", "travel", "recipe", "museum", "auto", "news", "wild", "pet")
_SUFFIXES = ("com", "org", "net", "de", "fr", "co.uk", "com.au", "ru", "co.jp", "com.br", "io")
# Share and a few words of each language: enough to look like a text, not meant to say much.
_WORDS = {
    "en": (0.65, "a photo of the old red house with garden blue dress vintage table dog beach new"),
    "de": (0.1, "ein Foto von dem alten roten Haus mit Garten blaues Kleid Damen Holztisch Hund"),
    "fr": (0.08, "une photo de la vieille maison rouge avec jardin robe bleue femme table en bois"),
    "es": (0.07, "una foto de la casa roja con jardín vestido azul mujer mesa de madera perro en"),
    "ru": (
        0.06,
        "фото старый красный дом сад синее платье женское деревянный стол собака на пляже",
    ),
    "ja": (0.04, "赤い 古い 家 の 写真 庭 青い ドレス 木製 テーブル 犬 海岸 黒い 靴 山 湖 夜 街"),
}
_POOL = 4_000  # different beginnings of a text a language


class Web:
    """Hosts with their sizes and habits, and pools of texts.

    `dead` hosts do not resolve; `failure` is the share of URLs that fail on the others;
    `quality` (mean 0, deviation 1) lifts the looks of a host's pictures.
    """

    def __init__(self, random: np.random.Generator, hosts: int) -> None:
        number = (random.permutation(hosts) // 2).tolist()  # about two hosts a domain
        fronts = random.choice(_FRONTS, hosts).tolist()
        names = [
            f"{front}.{_STEMS[n % len(_STEMS)]}-{n}.{_SUFFIXES[n * 7 % len(_SUFFIXES)]}"
            for n, front in zip(number, fronts, strict=True)
        ]
        self._names = pa.array(names)
        self._cumulative = np.cumsum(1 / (np.arange(hosts) + 8.0) ** 0.9)
        self.dead = (random.random(hosts) < 0.03) & (np.arange(hosts) >= 20)
        self.failure = random.beta(1.2, 9, hosts)
        self.quality = random.normal(0, 1, hosts)
        self._texts = []
        for language, (_, words) in _WORDS.items():
            gap = "" if language == "ja" else " "
            lengths = random.geometric(0.16, _POOL).clip(1, 30).tolist()
            self._texts += [gap.join(random.choice(words.split(), n)) for n in lengths]

    def draw_hosts(self, random: np.random.Generator, size: int) -> NDArray[np.int64]:
        """(size,) numbers of hosts: few large ones, many small ones."""
        return np.searchsorted(self._cumulative, random.random(size) * self._cumulative[-1])

    def urls(self, host: NDArray[np.int64], rows: NDArray[np.int64]) -> pa.Array:
        """One URL a row."""
        names, path = self._names.take(pa.array(host)), pa.array(rows).cast(pa.string())
        return pc.binary_join_element_wise("https://", names, "/pictures/", path, ".jpg", "")

    def texts(self, random: np.random.Generator, size: int) -> tuple[NDArray[np.str_], pa.Array]:
        """(size,) languages and alt texts; some are null, some recur."""
        share = np.array([share for share, _ in _WORDS.values()])
        drawn = random.choice(len(_WORDS), size, p=share / share.sum())
        picked = pa.array(self._texts).take(
            pa.array(drawn * _POOL + random.integers(0, _POOL, size))
        )
        number = pa.array(random.integers(0, 10_000, size)).cast(pa.string())
        own = pc.binary_join_element_wise(picked, number, " ")
        text = pc.if_else(pa.array(random.random(size) < 0.4), picked, own)
        missing = pa.array(random.random(size) < 0.02)
        return np.array(list(_WORDS))[drawn], pc.if_else(missing, pa.scalar(None, text.type), text)
