"""Which class is which driver."""

from barque.base.errors import InvalidInputError
from barque.logdrivers.entry import ContainerFacts, Driver


def make(name: str, facts: ContainerFacts) -> Driver:
    """Return the driver of a name for a container, not yet connected.

    Raises:
        InvalidInputError: no such driver, or an option that cannot be.
        DriverError: a file that an option names cannot be used.
    """
    if name == "syslog":
        from barque.logdrivers.syslog import Syslog

        return Syslog(facts)
    if name == "gelf":
        from barque.logdrivers.gelf import Gelf

        return Gelf(facts)
    if name == "fluentd":
        from barque.logdrivers.fluentd import Fluentd

        return Fluentd(facts)
    if name == "journald":
        from barque.logdrivers.journald import Journald

        return Journald(facts)
    return _cloud(name, facts)


def _cloud(name: str, facts: ContainerFacts) -> Driver:
    if name == "splunk":
        from barque.logdrivers.splunk import Splunk

        return Splunk(facts)
    if name == "awslogs":
        from barque.logdrivers.awslogs import AwsLogs

        return AwsLogs(facts)
    if name == "gcplogs":
        from barque.logdrivers.gcplogs import GcpLogs

        return GcpLogs(facts)
    raise InvalidInputError(f"logger: no log driver named '{name}' is registered")
