"""Settings of the judge `real`, read before any work."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from curate.base.settings import OPERATIONAL, Settings, nearest

FEATURES = {
    "mind": "inception",
    "kid": "inception",
    "fid": "inception",
    "fd_dinov2": "dino",
    "cmmd": "clip",
    "precision": "inception",
    "recall": "inception",
    "density": "inception",
    "coverage": "inception",
    "vendi": "inception",
}
"""Metric -> the features that it is computed on where no others are named."""
NETWORKS = ("inception", "clip", "dino")
ALONE = frozenset({"vendi"})
"""Metrics of the pictures alone, without a reference."""


def parse_metric(name: str) -> tuple[str, str]:
    """`mind` -> ("mind", "inception"), `mind_clip` -> ("mind", "clip").

    Raises:
        ValueError: there is no such metric.
    """
    if name in FEATURES:
        return name, FEATURES[name]
    metric, _, network = name.rpartition("_")
    if metric in FEATURES and network in NETWORKS and metric not in ("cmmd", "fd_dinov2"):
        return metric, network
    raise ValueError(f"there is no metric {name!r}; {nearest(name, list(FEATURES))}")


class RealOptions(Settings):
    """What sets of pictures are compared with, and by what."""

    metrics: list[str] = Field(
        ["mind", "kid", "fid", "precision", "recall", "vendi"],
        min_length=1,
        description="Any of mind, kid, fid, fd_dinov2, cmmd, precision, recall, density, coverage, "
        "vendi; on other features than its own as METRIC_NETWORK (mind_clip, precision_dino).",
    )
    reference: Path | None = Field(
        None, description="Real pictures: a folder of them, or a dataset. Needed by all but vendi."
    )
    selection: str | None = Field(None, description="Of a dataset: only the samples of this one.")
    pictures: int | None = Field(
        None,
        ge=5,
        description="N, of each set; a larger set is drawn down to it. Default: a set as it is.",
    )
    seed: int = Field(0, ge=0, description="Of every draw: pictures, MIND's directions.")
    inception: str | None = Field(
        None,
        description="Inception v3: pt_inception (FID's own, a pickle), a path, URL#sha256=HEX.",
    )
    clip: str | None = Field(None, description="MODEL@PRETRAINED of open_clip, or hf-hub:ORG/NAME.")
    dino: str | None = Field(
        None, description="DINOv2 or v3 of timm or transformers: hf-hub:ORG/NAME, or a folder."
    )
    allow_pickle: list[str] = Field([], description="Pickles that you trust, by name or sha256.")
    keep: Path | None = Field(
        None,
        description="Where features of the reference are kept; default beside a study's runs, or "
        "in CAPLAB_CACHE.",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="after")
    def _agrees(self) -> RealOptions:
        parsed = [parse_metric(name) for name in self.metrics]
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics names one twice")
        for name, (metric, network) in zip(self.metrics, parsed, strict=True):
            if getattr(self, network) is None:
                raise ValueError(f"{name} needs `{network}`, the model of its features")
            if self.reference is None and metric not in ALONE:
                raise ValueError(f"{name} needs `reference`, real pictures to compare with")
        if self.selection is not None and self.reference is None:
            raise ValueError("selection is of a reference, and none is given")
        return self
