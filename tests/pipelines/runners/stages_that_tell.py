"""Caption stages that tell what becomes of their workers, which import no more than they need."""

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from curate.store.dataset import Dataset
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage


class EachWorkerIsSeen(CaptionStage):
    """Each worker signs the roll, and waits with its first block until two have."""

    def __init__(self, settings: RecaptionSettings, dataset: Dataset, roll: Path) -> None:
        super().__init__(settings, dataset=dataset)
        self.roll = roll

    def write(self, dataset: Dataset, work: pa.Table) -> pa.Table:
        (self.roll / str(os.getpid())).touch()
        patience = time.monotonic() + 60
        while len(list(self.roll.iterdir())) < 2 and time.monotonic() < patience:
            time.sleep(0.1)
        return super().write(dataset, work)


class KilledOnce(CaptionStage):
    """Its worker dies once, behind a part that it has written and not told of."""

    def __init__(self, settings: RecaptionSettings, dataset: Dataset, mark: Path) -> None:
        super().__init__(settings, dataset=dataset)
        self.mark = mark

    def write(self, dataset: Dataset, work: pa.Table) -> pa.Table:
        rows = super().write(dataset, work)
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows
