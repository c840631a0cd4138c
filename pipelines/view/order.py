"""What decides an order of the samples; pipelines.view.rows makes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from curate.base.files import fingerprint


@dataclass(frozen=True)
class Order:
    """What decides an order. `random` replaces `sort`; `side` is of the rule `where`."""

    sort: str = ""
    down: bool = False
    selection: str = ""
    where: str = ""
    side: str = "all"
    random: int | None = None
    keep_duplicates: bool = False
    """Of the rule `where`: copies are not dropped."""
    captions: str = ""
    """A query of filters that one caption of the picture meets; see Opened.caption_keys."""

    @property
    def name(self) -> str:
        """The same order has the same name in every process."""
        return fingerprint(asdict(self))
