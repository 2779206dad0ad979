"""The number of images in one run of a network, chosen by timing the first runs of real work.

More images a run are not always faster: on two CPU cores r50 ran 2.3 times as fast at one image a
run as at 16 (ONNX Runtime), because the activations of one image fit the cache.
"""

from typing import Dict, Optional, Tuple

SIZES = (1, 2, 4, 8, 16, 32)
RUNS = 3  # of each size: the first one plans memory and is not counted
WORSE = 1.05  # a size this much slower per image than the best counts as worse
WORSE_IN_A_ROW = 2  # then larger sizes are not tried


class MicroBatch:
    """Proposes a size for each run; `record` reports how long the run took."""

    def __init__(self, sizes: Tuple[int, ...] = SIZES) -> None:
        self._sizes = sizes
        self._at = 0  # index of the size that is being timed
        self._runs = 0  # of that size
        self._seconds_per_image: Dict[int, float] = {}
        self.chosen: Optional[int] = sizes[0] if len(sizes) == 1 else None

    @property
    def size(self) -> int:
        """Images of the next run."""
        return self._sizes[self._at] if self.chosen is None else self.chosen

    def record(self, size: int, seconds: float) -> None:
        """Counts a run of `size` images; after the last trial the fastest size is chosen."""
        if self.chosen is not None or size != self.size:
            return
        self._runs += 1
        if self._runs > 1:
            best = self._seconds_per_image.get(size, float("inf"))
            self._seconds_per_image[size] = min(best, seconds / size)
        if self._runs == RUNS:
            self._next_size()

    def _next_size(self) -> None:
        self._at, self._runs = self._at + 1, 0
        tried = [self._seconds_per_image[size] for size in self._sizes[: self._at]]
        worse = [seconds > WORSE * min(tried) for seconds in tried[-WORSE_IN_A_ROW:]]
        if self._at == len(self._sizes) or (len(worse) == WORSE_IN_A_ROW and all(worse)):
            self.chosen = min(self._seconds_per_image, key=self._seconds_per_image.__getitem__)
