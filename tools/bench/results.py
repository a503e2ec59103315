"""What a run found, and how to ask for it. Knows no work item."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, Self

from attrs import frozen

from tools.bench.stores import Sample

OURS = "pagestore_arrays"
LIMIT = "limit"
BACK = "bytes back"


@frozen
class Results:
    """The samples of a run, and what they were taken on."""

    scale: Mapping[str, Any]
    machine: Mapping[str, str]
    peers: Mapping[str, Mapping[str, str]]
    left_out: Mapping[str, str]
    samples: list[Sample]
    seconds: float

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        samples = [Sample(**sample) for sample in plain["samples"]]
        return cls(
            plain["scale"],
            plain["machine"],
            plain["peers"],
            plain["left out"],
            samples,
            plain["seconds"],
        )

    def failed(self) -> bool:
        return any(sample.metric == "failed" for sample in self.samples)

    def find(self, work: str, case: str, metric: str, peer: str = OURS) -> Sample | None:
        for sample in self.samples:
            if (sample.work, sample.case, sample.metric, sample.peer) == (work, case, metric, peer):
                return sample
        return None

    def median(self, work: str, case: str, metric: str, peer: str = OURS) -> float | None:
        sample = self.find(work, case, metric, peer)
        return statistics.median(sample.values) if sample and sample.values else None

    def cases(self, work: str, metric: str) -> list[str]:
        """The cases of a metric, in the order in which they came."""
        found = (s.case for s in self.samples if (s.work, s.metric) == (work, metric))
        return list(dict.fromkeys(found))

    def rivals(self) -> list[str]:
        """Peers that keep durable versions, and are not pagestore."""
        return [
            name
            for name, peer in self.peers.items()
            if peer["kind"] == "versions" and not name.startswith("pagestore")
        ]

    def best(self, work: str, case: str, metric: str) -> tuple[float | None, str]:
        """The least median of the rivals that did as much, and whose it is.

        One that gives no space back is none, nor one that had no time to make as many versions.
        """
        ours = self.find(work, case, metric)
        whole = [
            rival
            for rival in self.rivals()
            if (theirs := self.find(work, case, metric, rival)) and ours and theirs.x == ours.x
        ]
        rivals = [r for r in whole if (self.median(work, case, BACK, r) or 1.0) > 0.9]
        found = [(self.median(work, case, metric, rival), rival) for rival in rivals]
        known = [(value, self.title(rival)) for value, rival in found if value is not None]
        return min(known, default=(None, "nobody"))

    def title(self, peer: str) -> str:
        return self.peers[peer]["title"] if peer in self.peers else peer
