"""Listeners of events: whoever goes, when ever, is not kept."""

import asyncio

from barque.engine.events import Events


async def test_a_listener_that_goes_before_it_began_is_forgotten():
    events = Events()
    await events.subscribe(0, 0, {}).aclose()
    assert events.listeners == 0


async def test_a_listener_that_goes_while_it_waits_is_forgotten():
    events = Events()
    subscription = events.subscribe(0, 0, {})
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    events.publish("container", "start", "c", {})
    assert (await waiting)["Action"] == "start"
    assert events.listeners == 1
    await subscription.aclose()
    assert events.listeners == 0


async def test_listening_ends_at_its_time():
    events = Events()
    assert [event async for event in events.subscribe(0, 1, {})] == []
    assert events.listeners == 0


async def test_what_comes_between_subscription_and_listening_is_not_lost():
    events = Events()
    subscription = events.subscribe(0, 0, {"event": ["stop"]})
    events.publish("container", "start", "c", {})
    events.publish("container", "stop", "c", {})
    assert (await anext(subscription))["Action"] == "stop"
    await subscription.aclose()
