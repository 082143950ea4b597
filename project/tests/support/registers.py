"""The check whether the reads and writes of one register, such as a user's row, have an order that explains all."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Value:
    """One value of a register: the write that sets it, and the reads that returned it.

    :ivar written: the start of the write, in seconds on the monotonic clock.
    :ivar first: the earliest end of its operations. Until then, the register need not have had the value.
    :ivar last: the latest start of its operations. The register had the value then, or later.
    """

    name: Hashable
    written: float
    first: float
    last: float
    was_read: bool = False

    @property
    def is_lasting(self) -> bool:
        """Whether the register must have had this value from ``first`` to ``last``."""
        return self.first < self.last

    def conflicts(self, other: 'Value') -> bool:
        """Return whether the register cannot have had both values; this one is lasting."""
        # The register had a value that is not lasting at some time between its last start and its first end.
        return self.first < other.last and other.first < self.last


class Register:
    """The operations on one register, each of which sets or returns a value. No value is set twice.

    The order exists if no two zones conflict: P. Gibbons and E. Korach, "Testing Shared Memories" (1997), section 4.
    """

    def __init__(self, initial: Hashable) -> None:
        self._values = {initial: Value(initial, -inf, -inf, -inf)}

    def write(self, name: Hashable, start: float, end: float) -> None:
        """Add a write.

        :param end: when it was acknowledged; infinity if its outcome is unknown, since it may take effect at any time.
        """
        known = self._values.setdefault(name, Value(name, start, end, start))
        known.written, known.first = min(known.written, start), min(known.first, end)

    def read(self, name: Hashable, start: float, end: float) -> None:
        """Add a read that returned a value. Its write has been added."""
        value = self._values[name]
        value.first, value.last, value.was_read = min(value.first, end), max(value.last, start), True

    def conflicts(self) -> Iterator[str]:
        """Yield a sentence for each read or pair of values that no order explains."""
        values = [value for value in self._values.values() if value.was_read or -inf < value.first < inf]
        for value in values:
            if value.was_read and value.first < value.written:
                yield f'{value.name!r} was returned at {value.first:.3f}, before it was written'
        lasting = [value for value in values if value.is_lasting]
        for index, value in enumerate(lasting):
            for other in values:
                if other not in lasting[: index + 1] and value.conflicts(other):
                    yield (
                        f'{value.name!r} was returned by a read that started at {value.last:.3f}, '
                        f'but {other.name!r} was acknowledged or returned by {other.first:.3f}'
                    )
