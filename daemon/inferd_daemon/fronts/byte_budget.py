"""How many bytes of requests the daemon holds, over all of its clients. Counts, and never waits."""


class ByteBudget:
    """The bytes that all sessions share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes that may be held at a time."""
        self.held = 0

    def __repr__(self) -> str:
        return f"<ByteBudget {self.held} of {self.limit}>"

    def take(self, count: int) -> bool:
        """Charge `count` bytes; False, and nothing charged, where there is no room."""
        if self.held + count > self.limit:
            return False
        self.held += count
        return True

    def give_back(self, count: int) -> None:
        """They are no longer in memory."""
        assert 0 <= count <= self.held
        self.held -= count


class SessionAccount:
    """One session's part of a budget, so that its end gives back all of it."""

    __slots__ = ("_budget", "held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    @property
    def limit(self) -> int:
        """That of the budget."""
        return self._budget.limit

    def take(self, count: int) -> bool:
        """As the budget does."""
        taken = self._budget.take(count)
        if taken:
            self.held += count
        return taken

    def give_back(self, count: int) -> None:
        """As the budget does. Nothing after `close`, which gave it back already."""
        count = min(count, self.held)
        self.held -= count
        self._budget.give_back(count)

    def close(self) -> None:
        """Give back what is left. Nothing is taken after that."""
        self.give_back(self.held)
