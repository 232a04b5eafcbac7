"""Which of the servers outside answer, and what they understand. Pure."""

FAILURES_TO_SICK = 2
_FIRST_REST_S = 5.0
_LONGEST_REST_S = 60.0


class Health:
    """What is known of one server: how often in a row it kept silent, and whether it knows EDNS."""

    __slots__ = ("_failures", "_rest_s", "_until_s", "edns")

    def __init__(self) -> None:
        self._failures = 0
        self._until_s = 0.0
        self._rest_s = _FIRST_REST_S
        self.edns = True

    def answered(self) -> None:
        """Note that it answered, whatever it said."""
        self._failures = 0
        self._rest_s = _FIRST_REST_S

    def silent(self, now_s: float) -> None:
        """Note that it did not answer in time, or refused the connection."""
        self._failures += 1
        if self._failures >= FAILURES_TO_SICK and now_s >= self._until_s:
            self._until_s = now_s + self._rest_s
            self._rest_s = min(self._rest_s * 2, _LONGEST_REST_S)

    @property
    def is_sick(self) -> bool:
        """Tell whether nobody should wait for it."""
        return self._failures >= FAILURES_TO_SICK

    def is_due(self, now_s: float) -> bool:
        """Tell whether it should be asked, be it to see whether it is well again."""
        return not self.is_sick or now_s >= self._until_s
