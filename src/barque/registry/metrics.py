"""Counts of what the server did, in the text form of Prometheus."""

import time
from collections import defaultdict

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters, one process's since its start."""

    def __init__(self) -> None:
        self.started = time.time()
        self.in_flight = 0
        self._counts: dict[tuple[str, _Labels], float] = defaultdict(float)
        self._buckets: dict[_Labels, list[int]] = {}
        self._help: dict[str, str] = {}

    def add(self, name: str, text: str, count: float = 1, **labels: str) -> None:
        """Add to a counter; text says what it counts."""
        self._help[name] = text
        self._counts[name, tuple(sorted(labels.items()))] += count

    def observe(self, seconds: float, **labels: str) -> None:
        """Note how long a request took."""
        key = tuple(sorted(labels.items()))
        buckets = self._buckets.setdefault(key, [0] * (len(_BUCKETS_S) + 1))
        for place, limit in enumerate(_BUCKETS_S):
            if seconds <= limit:
                buckets[place] += 1
        buckets[-1] += 1
        self._counts["barque_registry_request_duration_seconds_sum", key] += seconds

    def text(self) -> str:
        """Return all counts."""
        duration = "barque_registry_request_duration_seconds"
        lines = [
            "# HELP barque_registry_in_flight_requests Requests being answered.",
            "# TYPE barque_registry_in_flight_requests gauge",
            f"barque_registry_in_flight_requests {self.in_flight}",
            "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self.started:.2f}",
        ]
        for name, text in sorted(self._help.items()):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
            for (counted, labels), value in sorted(self._counts.items()):
                if counted == name:
                    lines.append(
                        f"{name}{_braces(labels)} {value:g}" if value < 1e6 else f"{name}{_braces(labels)} {value:.0f}"
                    )
        lines += [f"# HELP {duration} Time to answer a request.", f"# TYPE {duration} histogram"]
        for labels, buckets in sorted(self._buckets.items()):
            for limit, count in zip((*map(str, _BUCKETS_S), "+Inf"), buckets, strict=True):
                lines.append(f"{duration}_bucket{_braces((*labels, ('le', limit)))} {count}")
            lines.append(f"{duration}_sum{_braces(labels)} {self._counts[duration + '_sum', labels]:g}")
            lines.append(f"{duration}_count{_braces(labels)} {buckets[-1]}")
        return "\n".join(lines) + "\n"


def _braces(labels: _Labels) -> str:
    if not labels:
        return ""
    escaped = (f'{k}="{v.translate(_ESCAPES)}"' for k, v in labels)
    return "{" + ",".join(escaped) + "}"


_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
