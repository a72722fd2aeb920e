"""What the tiers tell of themselves while they work, for whoever counts it. No I/O.

Tiers are named as in ``ListAdapters``: ``absent`` (S3 alone has it), ``disk``, ``host``, ``slot``.
"""


class Observer:
    """Listens and does nothing; whoever wants to know overrides what it wants to know."""

    def found(self, tier: str) -> None:
        """A request's adapter was in this tier, and no nearer."""

    def moved(self, tier: str, duration_s: float) -> None:
        """An artifact was brought into this tier from the one before it, in so long."""

    def evicted(self, tier: str) -> None:
        """An artifact was taken out of this tier to make room, or because it is gone."""

    def fetched(self, num_bytes: int) -> None:
        """So much was read from S3."""

    def fetch_failed(self, reason: str) -> None:
        """A fetch ended without its artifact; the reason is in CamelCase, from a small set."""
