"""Which options each log driver has, with Docker's refusals. Pure but for looking at sockets that are named."""

import os
from collections.abc import Callable

from barque.base.errors import InvalidInputError
from barque.logdrivers import values
from barque.logdrivers.attributes import compiled
from barque.logdrivers.entry import Retries

Options = dict[str, str]
_COMMON = {"labels", "labels-regex", "env", "env-regex", "tag"}
_EVERYWHERE = {"mode", "max-buffer-size"}
_CACHE = {"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
              "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7")  # fmt: skip
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
SYSLOG_SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
_KNOWN: dict[str, set[str]] = {
    "json-file": {*_COMMON, "max-size", "max-file", "compress"},
    "local": {*_COMMON, "max-size", "max-file", "compress"},
    "none": set(),
    "journald": _COMMON,
    "syslog": {*_COMMON, "syslog-address", "syslog-facility", "syslog-tls-ca-cert", "syslog-tls-cert",
               "syslog-tls-key", "syslog-tls-skip-verify", "syslog-format"},
    "gelf": {*_COMMON, "gelf-address", "gelf-compression-level", "gelf-compression-type", "gelf-tcp-max-reconnect",
             "gelf-tcp-reconnect-delay"},
    "fluentd": {*_COMMON, "fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval",
                "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
                "fluentd-sub-second-precision", "fluentd-write-timeout", "fluentd-read-timeout"},
    "splunk": {*_COMMON, "splunk-url", "splunk-token", "splunk-source", "splunk-sourcetype", "splunk-index",
               "splunk-capath", "splunk-caname", "splunk-insecureskipverify", "splunk-format",
               "splunk-verify-connection", "splunk-gzip", "splunk-gzip-level", "splunk-index-acknowledgment"},
    "awslogs": {"tag", "awslogs-region", "awslogs-endpoint", "awslogs-group", "awslogs-stream",
                "awslogs-create-group", "awslogs-create-stream", "awslogs-datetime-format",
                "awslogs-multiline-pattern", "awslogs-credentials-endpoint",
                "awslogs-force-flush-interval-seconds", "awslogs-max-buffered-events", "awslogs-format"},
    "gcplogs": {"labels", "labels-regex", "env", "env-regex", "gcp-project", "gcp-log-cmd", "gcp-meta-zone",
                "gcp-meta-name", "gcp-meta-id"},
}  # fmt: skip
DRIVERS = tuple(_KNOWN)
FILE_DRIVERS = ("json-file", "local")


def is_remote(driver: str) -> bool:
    """Tell whether entries go elsewhere than into a file of our own."""
    return driver not in FILE_DRIVERS and driver != "none"


def check(driver: str, options: Options, plugins: Callable[[str], bool] = lambda name: False) -> None:
    """Refuse a driver that there is not, and options that it has not or that cannot be.

    Args:
        driver: the name.
        options: as the user gave them.
        plugins: tells whether a log driver outside the engine has this name.

    Raises:
        InvalidInputError: says which.
    """
    if driver == "none":
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidInputError(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidInputError("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _named("error parsing option max-buffer-size", values.size, options["max-buffer-size"])
    if driver not in _KNOWN:
        if not plugins(driver):
            raise InvalidInputError(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
        _check_cache(options)
        return
    known = _KNOWN[driver] | _EVERYWHERE | (_CACHE if is_remote(driver) else set())
    for key in options:
        if key not in known:
            raise InvalidInputError(_unknown(driver, key))
    for key in ("labels-regex", "env-regex"):
        if options.get(key):
            compiled(options[key])
    _check_cache(options)
    if driver in _CHECKS:
        _CHECKS[driver](options)


def _unknown(driver: str, key: str) -> str:
    if driver == "gelf":
        return f'unknown log opt "{key}" for gelf log driver'
    if driver == "gcplogs":
        return f'"{key}" is not a valid option for the gcplogs driver'
    if driver == "local":
        return f"unknown log opt '{key}' for log driver local"
    return f"unknown log opt '{key}' for {driver} log driver"


def _named(what: str, read: Callable[[str], object], text: str) -> None:
    try:
        read(text)
    except InvalidInputError as error:
        raise InvalidInputError(f"{what}: {error}") from None


def _check_cache(options: Options) -> None:
    for key in ("cache-disabled", "cache-compress"):
        if key in options:
            _named(f"invalid value for {key}", values.truth, options[key])
    if "cache-max-size" in options:
        values.size(options["cache-max-size"])
    if "cache-max-file" in options and values.whole(options["cache-max-file"]) < 1:
        raise InvalidInputError("cache-max-file must be a positive number")


def _check_files(options: Options) -> None:
    if options.get("max-size", "-1") != "-1":
        values.size(options["max-size"])
    count = options.get("max-file")
    if count is not None and (not count.isdecimal() or int(count) < 1):
        raise InvalidInputError("max-file cannot be less than 1")
    compress = options.get("compress")
    if compress is not None:
        values.truth(compress)


def _check_json_file(options: Options) -> None:
    _check_files(options)
    if options.get("compress") in ("true", "1"):
        if options.get("max-file", "1") == "1":
            raise InvalidInputError("compress cannot be true when max-file is less than 2 or unset")
        if options.get("max-size", "-1") == "-1":
            raise InvalidInputError("compress cannot be true when max-size is unset")


def _check_syslog(options: Options) -> None:
    text = options.get("syslog-address")
    if text:
        found = values.address(text, SYSLOG_SCHEMES, 514)
        if found.path and not os.path.exists(found.path):
            raise InvalidInputError(f"stat {found.path}: no such file or directory")
    syslog_facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in SYSLOG_FORMATS:
        raise InvalidInputError("Invalid syslog format")


def syslog_facility(text: str) -> int:
    """Return a facility's number from its name or number, that of daemons for none.

    Raises:
        InvalidInputError: there is none.
    """
    if not text:
        return FACILITIES.index("daemon")
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text.isdecimal() and int(text) < len(FACILITIES):
        return int(text)
    raise InvalidInputError("invalid syslog facility")


def gelf_address(options: Options) -> values.Address:
    """Return where a GELF server is.

    Raises:
        InvalidInputError: the option is missing or malformed.
    """
    text = options.get("gelf-address")
    if not text:
        raise InvalidInputError("gelf-address is a required parameter")
    try:
        found = values.address(text, ("udp", "tcp"), 0)
    except InvalidInputError:
        raise InvalidInputError("gelf: endpoint needs to be TCP or UDP") from None
    if not found.port:
        raise InvalidInputError("gelf: please provide gelf-address as proto://host:port")
    return found


def _check_gelf(options: Options) -> None:
    scheme = gelf_address(options).scheme
    for key, text in options.items():
        if key.startswith("gelf-compression") and scheme != "udp":
            raise InvalidInputError("compression is only supported on UDP")
        if key.startswith("gelf-tcp") and scheme != "tcp":
            raise InvalidInputError(f'"{key}" is only valid for TCP')
        wrong = InvalidInputError(f'unknown value "{text}" for log opt "{key}" for gelf log driver')
        if key == "gelf-compression-type" and text not in ("gzip", "zlib", "none"):
            raise wrong
        if key == "gelf-compression-level" and text not in [str(level) for level in range(-1, 10)]:
            raise wrong
        if key.startswith("gelf-tcp") and not text.isdecimal():
            raise InvalidInputError(f'"{key}" must be a positive integer')


def fluentd_address(text: str) -> values.Address:
    """Return where a fluentd is; the one of this machine for no text.

    Raises:
        InvalidInputError: it is malformed.
    """
    wrong = f"invalid fluentd-address ({text})"
    if not text:
        return values.Address("tcp", "127.0.0.1", 24224)
    try:
        found = values.address(text if "://" in text else f"tcp://{text}", ("tcp", "tls", "unix"), 24224)
    except InvalidInputError as error:
        raise InvalidInputError(f"{wrong}: {error}") from None
    if found.scheme == "unix":
        if not found.path.strip("/"):
            raise InvalidInputError(f"{wrong}: path is empty")
    elif found.path:
        raise InvalidInputError(f"{wrong}: should not contain a path element")
    return found._replace(host=found.host or "127.0.0.1") if found.scheme != "unix" else found


def _check_fluentd(options: Options) -> None:
    fluentd_address(options.get("fluentd-address", ""))
    for key in ("fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision"):
        if options.get(key):
            values.truth(options[key])
    if options.get("fluentd-buffer-limit"):
        values.size(options["fluentd-buffer-limit"])
    retries = options.get("fluentd-max-retries")
    if retries and not 0 <= values.whole(retries) <= (1 << 31) - 1:
        raise InvalidInputError("invalid fluentd-max-retries: value out of range")
    if options.get("fluentd-retry-wait") and values.duration_s(options["fluentd-retry-wait"]) < 0:
        raise InvalidInputError("invalid value for fluentd-retry-wait: value must be a duration that is non-negative")
    interval = options.get("fluentd-async-reconnect-interval")
    if interval and not (values.duration_s(interval) == 0 or 0.1 <= values.duration_s(interval) <= 10):
        raise InvalidInputError(
            f'invalid value for fluentd-async-reconnect-interval: value ("{interval}") must be between 100ms and 10s'
        )
    for key in ("fluentd-write-timeout", "fluentd-read-timeout"):
        if options.get(key) and values.duration_s(options[key]) < 0:
            raise InvalidInputError(f"invalid value for {key}: value must be a duration that is non-negative")


def retries(options: Options) -> Retries:
    """Return how an entry that was not delivered is tried again; only fluentd's options say anything of it."""
    first, most = options.get("fluentd-retry-wait"), options.get("fluentd-max-retries")
    made = Retries(most=int(most) if most else None)
    return made._replace(first_s=values.duration_s(first)) if first else made


def _check_splunk(options: Options) -> None:
    for key in ("splunk-insecureskipverify", "splunk-verify-connection", "splunk-gzip", "splunk-index-acknowledgment"):
        if key in options:
            values.truth(options[key])
    level = options.get("splunk-gzip-level")
    if level is not None and not -1 <= values.whole(level) <= 9:
        raise InvalidInputError(
            f"not supported level '{level}' for splunk-gzip-level (supported values between -1 and 9)"
        )
    form = options.get("splunk-format", "inline")
    if form not in ("inline", "json", "raw"):
        raise InvalidInputError(f"unknown format specified {form}, supported formats are inline, json and raw")


def _check_awslogs(options: Options) -> None:
    if not options.get("awslogs-group"):
        raise InvalidInputError("must specify a value for log opt 'awslogs-group'")
    for key in ("awslogs-create-group", "awslogs-create-stream"):
        if options.get(key):
            _named(f"must specify valid value for log opt '{key}'", values.truth, options[key])
    for key in ("awslogs-force-flush-interval-seconds", "awslogs-max-buffered-events"):
        text = options.get(key)
        if text and (not text.isdecimal() or int(text) <= 0):
            raise InvalidInputError(f"must specify a positive integer for log opt '{key}': {text}")
    date, pattern, form = (
        "awslogs-datetime-format" in options, "awslogs-multiline-pattern" in options, options.get("awslogs-format")
    )  # fmt: skip
    if date and pattern:
        raise InvalidInputError("you cannot configure log opt 'awslogs-datetime-format' and "
                                "'awslogs-multiline-pattern' at the same time")  # fmt: skip
    if pattern:
        compiled(options["awslogs-multiline-pattern"])
    if form and form != "json/emf":
        raise InvalidInputError(f"unsupported log format '{form}'")
    if form and (date or pattern):
        raise InvalidInputError("you cannot configure log opt 'awslogs-datetime-format' or "
                                "'awslogs-multiline-pattern' when log opt 'awslogs-format' is set to 'json/emf'")  # fmt: skip


_CHECKS: dict[str, Callable[[Options], None]] = {
    "json-file": _check_json_file, "local": _check_files, "syslog": _check_syslog, "gelf": _check_gelf,
    "fluentd": _check_fluentd, "splunk": _check_splunk, "awslogs": _check_awslogs,
}  # fmt: skip
