"""Fixtures of all tests: a real engine, in a network namespace of the run's own."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from registries import RegistryUnderTest
from under_test import EngineUnderTest, isolate_network, running_engine

# How long one example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("shared machine", deadline=None)
# For long runs: pytest --timeout=0 --hypothesis-profile=fuzz tests/unit/storage/test_tar_fuzz.py tests/unit/oci
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """Move the whole run into a network namespace of its own; commands that tests start can be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A run in the background of a shell; what it starts would be deaf as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0:
        isolate_network()


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    """Give an engine with a busybox image, shared by the tests of a module."""
    yield from running_engine()


@pytest.fixture
def own_engine() -> Iterator[EngineUnderTest]:
    """Give an engine of the test's own, to be killed and restarted."""
    yield from running_engine()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryUnderTest]:
    """Give a registry without passwords, empty at the beginning of a module."""
    made = RegistryUnderTest(tmp_path_factory.mktemp("registry"))
    made.start()
    yield made
    made.stop()
