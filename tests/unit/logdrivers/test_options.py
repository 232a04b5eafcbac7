"""Options of log drivers, tags and attributes."""

import pytest

from barque.base.errors import InvalidInputError
from barque.logdrivers import attributes, options
from barque.logdrivers.entry import FOR_EVER, Retries
from unit.logdrivers.facts import facts


@pytest.mark.parametrize(
    ("driver", "wanted", "words"),
    [
        ("nosuch", {}, 'error looking up logging plugin nosuch: plugin "nosuch" not found'),
        ("json-file", {"x": "y"}, "unknown log opt 'x' for json-file log driver"),
        ("json-file", {"max-size": "red"}, "invalid size: 'red'"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"compress": "true"}, "compress cannot be true when max-file is less than 2 or unset"),
        ("json-file", {"mode": "fast"}, "logger: logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, "max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("json-file", {"labels-regex": "("}, "error parsing regexp"),
        ("json-file", {"cache-disabled": "true"}, "unknown log opt 'cache-disabled'"),
        ("local", {"x": "y"}, "unknown log opt 'x' for log driver local"),
        ("journald", {"x": "y"}, "unknown log opt 'x' for journald log driver"),
        ("syslog", {"syslog-address": "http://a"}, "unsupported scheme: 'http'"),
        ("syslog", {"syslog-address": "unix:///no/such"}, "stat /no/such: no such file or directory"),
        ("syslog", {"syslog-facility": "pub"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "rfc1"}, "Invalid syslog format"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "http://a:1"}, "gelf: endpoint needs to be TCP or UDP"),
        ("gelf", {"gelf-address": "udp://a"}, "please provide gelf-address as proto://host:port"),
        ("gelf", {"gelf-address": "tcp://a:1", "gelf-compression-type": "gzip"}, "compression is only supported on UDP"),
        ("gelf", {"gelf-address": "udp://a:1", "gelf-compression-level": "10"}, "unknown value"),
        ("gelf", {"gelf-address": "udp://a:1", "gelf-tcp-max-reconnect": "1"}, "is only valid for TCP"),
        ("fluentd", {"fluentd-address": "unix://"}, "path is empty"),
        ("fluentd", {"fluentd-address": "udp://a"}, "unsupported scheme: 'udp'"),
        ("fluentd", {"fluentd-async-reconnect-interval": "1m"}, "must be between 100ms and 10s"),
        ("splunk", {"splunk-format": "xml"}, "unknown format specified xml"),
        ("splunk", {"splunk-gzip-level": "11"}, "not supported level '11'"),
        ("awslogs", {}, "must specify a value for log opt 'awslogs-group'"),
        ("awslogs", {"awslogs-group": "g", "awslogs-format": "x"}, "unsupported log format 'x'"),
        ("awslogs", {"awslogs-group": "g", "awslogs-datetime-format": "a", "awslogs-multiline-pattern": "b"},
         "you cannot configure log opt"),
        ("gcplogs", {"tag": "x"}, '"tag" is not a valid option for the gcplogs driver'),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_with_dockers_words(driver, wanted, words):
    with pytest.raises(InvalidInputError) as caught:
        options.check(driver, wanted)
    assert words in str(caught.value)


def test_options_that_can_be_pass():
    options.check("none", {"anything": "goes"})
    options.check("json-file", {"max-size": "10m", "max-file": "3", "compress": "true", "mode": "non-blocking",
                                "max-buffer-size": "4m"})  # fmt: skip
    options.check("syslog", {"syslog-address": "tcp+tls://h:1", "syslog-facility": "23", "cache-max-size": "1m"})
    options.check("mine", {"any": "thing"}, lambda name: name == "mine")


def test_fluentds_options_say_how_often_and_when_an_entry_is_tried_again():
    assert options.retries({}) == FOR_EVER
    assert options.retries({"fluentd-retry-wait": "250ms", "fluentd-max-retries": "3"}) == Retries(first_s=0.25, most=3)


def test_attributes_are_chosen_by_name_and_by_expression():
    wanted = {"labels": "team,none", "labels-regex": "^ti", "env": "STAGE", "env-regex": "^SEC"}
    found = attributes.extra_attributes(facts(options=wanted), str.upper)
    assert found == {"TEAM": "a", "TIER": "b", "STAGE": "prod", "SECRET": "x"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", "c" * 12),
        ("plain", "plain"),
        ("{{.Name}}/{{.ID}}", "web/" + "c" * 12),
        ("{{.ImageName}} {{.ImageID}}", "shop/web:1 " + "d" * 12),
        ("{{.FullID}}", "c" * 64),
        ("{{ .Command }}", "sh -c true"),
        ('{{index .ContainerLabels "team"}}-{{upper .Name}}', "a-WEB"),
    ],
)
def test_tags_are_templates_over_the_container(template, expected):
    assert attributes.tag(facts(options={"tag": template} if template else {})) == expected


def test_a_tag_that_names_what_there_is_not_is_refused():
    for template in ("{{.Nothing}}", "{{.Name"):
        with pytest.raises(InvalidInputError, match="log-tag"):
            attributes.tag(facts(options={"tag": template}))
