"""Log lines through vLLM's logger, in its format and under its level."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vllm import envs
from vllm.logger import init_logger

from .plan import Compaction

# A name under vllm's: only those have handlers.
logger = init_logger("vllm.chunkkv")


@dataclass
class Counts:
    """What was done."""

    requests: int = 0
    dropped: int = 0
    freed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.requests} prompts compressed, {self.dropped} tokens dropped, "
            f"{self.freed} blocks freed"
        )


@dataclass
class Tally:
    """Counts compactions, and says so at most once in vLLM's interval of statistics."""

    total: Counts = field(default_factory=Counts)
    recent: Counts = field(default_factory=Counts)
    said: float = 0.0

    def add(self, compaction: Compaction) -> None:
        """One compaction."""
        for counts in (self.total, self.recent):
            counts.requests += 1
            counts.dropped += compaction.n - compaction.k
            counts.freed += len(compaction.old) - len(compaction.new)

    def report(self, now: bool = False) -> None:
        """Logs what came since the last line, if it is time."""
        if not self.recent.requests:
            return
        moment = time.monotonic()
        if now or moment - self.said >= envs.VLLM_LOG_STATS_INTERVAL:
            logger.info("chunkkv: %s (in all: %s)", self.recent, self.total)
            self.recent, self.said = Counts(), moment
