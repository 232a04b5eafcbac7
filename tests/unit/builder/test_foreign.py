"""How long a frontend may ask for nothing."""

import asyncio

import pytest

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.foreign import Calls
from barque.builder.collecting import FrontendLimits, frontend_limits, policies_of


async def _expires(limit_s: float | None, *, inside: bool) -> bool:
    """Tell whether a frontend that stays silent for a while, or waits for an answer, is ended."""
    try:
        async with asyncio.timeout(limit_s) as silence:
            calls = Calls(silence, limit_s)
            if inside:
                with calls, calls:
                    await asyncio.sleep(0.05)
                return False
            with calls:
                pass
            await asyncio.sleep(0.2)
    except TimeoutError:
        return True
    # A call that ends after the frontend changes nothing.
    with calls:
        pass
    return False


def test_time_counts_only_while_no_call_is_under_way() -> None:
    assert asyncio.run(_expires(0.02, inside=False))
    assert not asyncio.run(_expires(0.02, inside=True))
    assert not asyncio.run(_expires(None, inside=False))


def test_limits_are_read_from_the_file() -> None:
    assert frontend_limits({}) == FrontendLimits()
    given = {"frontends": {"maxMemory": "2GB", "maxSilence": "1m"}}
    assert frontend_limits(given) == FrontendLimits(2 << 30, 60_000_000_000)
    for wrong in ({"colour": 1}, {"maxMemory": "much"}, {"maxSilence": "long"}, 3):
        with pytest.raises(InvalidInputError, match=r"builder\.frontends"):
            policies_of({"frontends": wrong}, 1)
