"""Hosts, URLs and alt texts of a generated dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SUFFIXES = (
    "com",
    "org",
    "net",
    "de",
    "fr",
    "co.uk",
    "com.au",
    "ru",
    "co.jp",
    "com.br",
    "it",
    "io",
)
_STEMS = (
    *("garden", "photo", "shop", "travel", "recipe", "craft", "museum", "auto", "sport"),
    *("fashion", "home", "art", "news", "book", "wild", "city", "bike", "music", "pet", "stock"),
)
_FRONTS = ("www", "cdn", "img1", "img2", "static", "media", "i", "assets")

# A few words of each language: enough to look like a text, not meant to say much.
_WORDS = {
    "en": "a photo of the old red house with garden blue dress women vintage wooden table dog on "
    "beach sunset new black leather shoes mountain lake city night easy chicken recipe",
    "de": "ein Foto von dem alten roten Haus mit Garten blaues Kleid Damen Holztisch Hund am "
    "Strand neue schwarze Schuhe Berg See Stadt bei Nacht",
    "fr": "une photo de la vieille maison rouge avec jardin robe bleue femme table en bois chien "
    "sur la plage chaussures noires montagne lac ville",
    "es": "una foto de la casa roja con jardín vestido azul mujer mesa de madera perro en la playa "
    "zapatos negros montaña lago ciudad de noche",
    "ru": "фото старый красный дом сад синее платье женское деревянный стол собака на пляже "
    "чёрные ботинки гора озеро ночной город",
    "ja": "赤い 古い 家 の 写真 庭 青い ドレス 木製 テーブル 犬 海岸 黒い 靴 山 湖 夜 の 街",
    "zh": "红色 老 房子 照片 花园 蓝色 连衣裙 木桌 狗 海滩 黑色 皮鞋 山 湖 城市 夜景",
    "pt": "uma foto da casa vermelha com jardim vestido azul mulher mesa de madeira cachorro na "
    "praia sapatos pretos montanha lago cidade",
}
_SHARES = (0.62, 0.08, 0.06, 0.06, 0.06, 0.04, 0.03, 0.05)
_POOL = 4_000  # different beginnings of a text a language


@dataclass
class Web:
    """Hosts with their sizes and habits, and pools of texts.

    `dead` hosts do not resolve; `failure` is the share of URLs that fail on the others;
    `quality` (mean 0, deviation 1) lifts the looks of a host's pictures.
    """

    random: np.random.Generator
    hosts: int
    names: pa.Array = field(init=False)
    share: NDArray[np.float64] = field(init=False)
    dead: NDArray[np.bool_] = field(init=False)
    failure: NDArray[np.float64] = field(init=False)
    quality: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        random, count = self.random, self.hosts
        number = random.permutation(count) // 2  # about two hosts a domain
        fronts = random.integers(0, len(_FRONTS), count).tolist()
        self.names = pa.array(
            [
                f"{_FRONTS[front]}.{_STEMS[n % len(_STEMS)]}-{n}."
                f"{_SUFFIXES[n * 7 % len(_SUFFIXES)]}"
                for n, front in zip(number.tolist(), fronts, strict=True)
            ]
        )
        weight = 1 / (np.arange(count) + 8.0) ** 0.9
        self._cumulative = np.cumsum(weight / weight.sum())
        self.dead = random.random(count) < 0.03
        self.dead[:20] = False
        self.failure = random.beta(1.2, 9, count)
        self.quality = random.normal(0, 1, count)
        self._texts = {
            language: _pool(words.split(), random, gap="" if language in ("ja", "zh") else " ")
            for language, words in _WORDS.items()
        }

    def draw_hosts(self, random: np.random.Generator, size: int) -> NDArray[np.int64]:
        """(size,) numbers of hosts: few large ones, many small ones."""
        return np.searchsorted(self._cumulative, random.random(size)).clip(max=self.hosts - 1)

    def urls(self, host: NDArray[np.int64], rows: NDArray[np.int64]) -> pa.Array:
        """One URL a row."""
        path = pa.array(rows).cast(pa.string())
        return pc.binary_join_element_wise(
            "https://", self.names.take(pa.array(host)), "/pictures/", path, ".jpg", ""
        )

    def texts(self, random: np.random.Generator, size: int) -> tuple[NDArray[np.str_], pa.Array]:
        """(size,) languages and alt texts; some are null, some recur."""
        languages = np.array(list(_WORDS))
        drawn = random.choice(len(languages), size, p=np.array(_SHARES) / sum(_SHARES))
        pool: Any = pa.concat_arrays(list(self._texts.values()))
        picked = pool.take(pa.array(drawn * _POOL + random.integers(0, _POOL, size)))
        own = pc.binary_join_element_wise(
            picked, pa.array(random.integers(0, 10_000, size)).cast(pa.string()), " "
        )
        text = pc.if_else(pa.array(random.random(size) < 0.4), picked, own)
        return languages[drawn], pc.if_else(
            pa.array(random.random(size) < 0.02), pa.scalar(None, pa.string()), text
        )


def _pool(words: list[str], random: np.random.Generator, gap: str) -> pa.Array:
    lengths = random.geometric(0.16, _POOL).clip(1, 30)
    return pa.array(
        [gap.join(random.choice(words, length).tolist()) for length in lengths.tolist()]
    )
