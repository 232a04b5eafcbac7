"""Google Cloud Logging, by its JSON interface."""

import json
from typing import Any

from barque.base.times import format_ns
from barque.logdrivers.attributes import extra_attributes
from barque.logdrivers.connection import HttpClient
from barque.logdrivers.entry import ContainerFacts, Driver, DriverError, Entry
from barque.logdrivers.google_access import Tokens, account_file

_ENDPOINT = "https://logging.googleapis.com"
_ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING"
_METADATA = "http://metadata.google.internal"
_PATH = "/v2/entries:write"
_MOST_BYTES = 8 << 20


class GcpLogs(Driver):
    """The driver `gcplogs`."""

    def __init__(self, facts: ContainerFacts) -> None:
        options, environment = facts.options, facts.environment
        self._environment = environment
        self._project = options.get("gcp-project", "")
        self._instance = {
            key: options[name]
            for key, name in (("zone", "gcp-meta-zone"), ("name", "gcp-meta-name"), ("id", "gcp-meta-id"))
            if options.get(name)
        }  # fmt: skip
        self._container: dict[str, Any] = {
            "name": f"/{facts.name}", "id": facts.id, "imageName": facts.image_name, "imageId": facts.image_id,
            "created": format_ns(facts.created_ns),
        }  # fmt: skip
        attributes = extra_attributes(facts)
        if attributes:
            self._container["metadata"] = attributes
        if options.get("gcp-log-cmd") == "true":
            self._container["command"] = facts.command_line
        self._tokens = Tokens(environment)
        self._http = HttpClient(environment.get(_ENDPOINT_VARIABLE) or _ENDPOINT)

    def open(self) -> None:
        """Find the project and ask for a token."""
        if not self._project:
            self._project = self._own_project()
        self._tokens.get()

    def _own_project(self) -> str:
        path = self._environment.get("GOOGLE_APPLICATION_CREDENTIALS")
        if path and account_file(path).get("project_id"):
            return str(account_file(path)["project_id"])
        try:
            status, text = HttpClient(_METADATA).request(
                "GET", "/computeMetadata/v1/project/project-id", None, {"Metadata-Flavor": "Google"}
            )
        except DriverError:
            status, text = 0, b""
        if status != 200:
            raise DriverError("No project was specified and couldn't read project from the metadata server. "
                              "Please specify a project")  # fmt: skip
        return text.decode()

    def send(self, entries: list[Entry]) -> None:
        """Write entries, some megabytes at a time."""
        if not self._project:
            self.open()
        rows: list[dict[str, Any]] = []
        size = done = 0
        for number, entry in enumerate(entries):
            rows.append(self.row(entry))
            size += len(entry.text) + 600
            if size > _MOST_BYTES or number == len(entries) - 1:
                self._write(rows, done)
                rows, size, done = [], 0, number + 1

    def row(self, entry: Entry) -> dict[str, Any]:
        """Return an entry as the service takes it."""
        payload: dict[str, Any] = {"container": self._container, "message": entry.text.decode("utf-8", "replace")}
        if self._instance:
            payload["instance"] = self._instance
        return {"timestamp": format_ns(entry.time_ns), "jsonPayload": payload}

    def _write(self, rows: list[dict[str, Any]], done: int) -> None:
        resource: dict[str, Any] = {"type": "global", "labels": {"project_id": self._project}}
        if self._instance:
            labels = {"instance_id": self._instance.get("id", ""), "zone": self._instance.get("zone", "")}
            resource = {"type": "gce_instance", "labels": labels}
        value = {
            "logName": f"projects/{self._project}/logs/gcplogs-docker-driver", "resource": resource, "entries": rows,
        }  # fmt: skip
        try:
            headers = {"Authorization": f"Bearer {self._tokens.get()}", "Content-Type": "application/json"}
            status, text = self._http.request("POST", _PATH, json.dumps(value).encode(), headers)
        except DriverError as error:
            raise DriverError(str(error), done) from None
        if status != 200:
            words = text[:300].decode("utf-8", "replace")
            raise DriverError(f"gcplogs: entries were refused: {status} {words}", done)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
