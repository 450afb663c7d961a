"""Fair shares of what there is a bounded number of: no key can hold so many places that another finds none.

Builds on nothing. A key may hold as many places as it leaves free: alone a half of all, beside another that does the
same a third, and so on; there is always room for one who has none yet. For the event loop alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """Places that keys hold.

    Args:
        most: of all keys.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """By whomever."""
        return self._held.total()

    def free(self, key: str, wanted: int = 1, *, shared: bool = True) -> bool:
        """Whether a key may take places.

        Args:
            key: its id.
            wanted: so many.
            shared: others have to be left room; False where there is nobody else.
        """
        left = self.most - self.taken - wanted
        # The first request of a key is served wherever there is room, be it larger than its share.
        return left >= 0 and (not shared or self._held[key] == 0 or self._held[key] + wanted <= left)

    @contextmanager
    def held(self, key: str, wanted: int = 1) -> Iterator[None]:
        """Hold places; whether they are free is for the caller to ask."""
        self._held[key] += wanted
        try:
            yield
        finally:
            self._held[key] -= wanted
            if not self._held[key]:
                del self._held[key]
