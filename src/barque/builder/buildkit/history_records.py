"""What is recorded of a build: what was asked, what came of it, what was shown. Pure."""

import json
import re
import struct
from collections.abc import Iterable
from typing import Any

from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.pb import control_pb2, status_pb2
from barque.builder.buildkit.progress import timestamp
from barque.builder.shown import without_passwords
from barque.oci import digest as digests

Json = dict[str, Any]
LOGS = "application/vnd.buildkit.status.v0"
STATEMENT = "application/vnd.in-toto+json"
_PREDICATE = "in-toto.io/predicate-type"
LARGEST_LOG = 8 << 20
"""How many bytes of what one build showed are kept."""
_UNKNOWN = 2
_CANCELED = "context canceled"
_TOKENS = re.compile(r"token|secret|password|account_key", re.IGNORECASE)


def recorded(build: Build) -> Any:
    """Return the record of a build as far as it has come; what opens foreign doors is left out."""
    record = control_pb2.BuildHistoryRecord(
        Ref=build.ref, Frontend=build.frontend, FrontendAttrs={key: _safe(key, value) for key, value in build.options.items()},
        CreatedAt=timestamp(build.created_ns),
        Exporters=[control_pb2.Exporter(Type=kind, Attrs=attributes) for kind, attributes in build.exporters],
    )  # fmt: skip
    report = build.report
    record.numCachedSteps, record.numTotalSteps = report.cached, report.total
    record.numCompletedSteps, record.numWarnings = report.completed, report.warnings
    if not build.completed_ns:
        return record
    record.CompletedAt.CopyFrom(timestamp(build.completed_ns))
    record.ExporterResponse.update(build.response)
    if build.error:
        record.error.CopyFrom(status_pb2.Status(code=1 if build.error == _CANCELED else _UNKNOWN, message=build.error))
        for kind, value in build.details:
            record.error.details.add(type_url=kind, value=value)
    return record


def _safe(key: str, value: str) -> str:
    """Return an option's value without passwords of URLs and tokens of caches."""
    if key != "cache-imports":
        return without_passwords(value)
    try:
        rows = json.loads(value)
        for row in rows:
            row["Attrs"] = {name: "xxxxx" if _TOKENS.search(name) else one for name, one in (row.get("Attrs") or {}).items()}
    except (ValueError, AttributeError, TypeError):
        return ""
    return json.dumps(rows)


def blobs_of(record: Any, said: Iterable[Any], attested: dict[str, list[tuple[str, Any]]]) -> list[bytes]:
    """Return the blobs of a record, which then names them.

    Args:
        record: is changed.
        said: what the build showed.
        attested: what is said of its outcome, by platform: kind and content.
    """
    logs = _log(said)
    record.logs.CopyFrom(_described(LOGS, logs))
    blobs = [logs]
    for platform, statements in attested.items():
        info = control_pb2.BuildResultInfo()
        for kind, content in statements:
            raw = json.dumps(content).encode("utf-8", "surrogateescape")
            blobs.append(raw)
            info.Attestations.append(_described(STATEMENT, raw, **{_PREDICATE: kind}))
        if platform:
            record.Results[platform].CopyFrom(info)
        else:
            record.Result.CopyFrom(info)
    return blobs


def _described(kind: str, data: bytes, **annotations: str) -> Any:
    return control_pb2.Descriptor(media_type=kind, digest=digests.of(data), size=len(data), annotations=annotations)


def _log(said: Iterable[Any]) -> bytes:
    """Return what a build showed, each message behind its length; output beyond the limit is left out."""
    made = bytearray()
    clipped = False
    for message in said:
        if len(made) > LARGEST_LOG and message.logs:
            if clipped:
                continue
            clipped = True
            one = message.logs[0]
            text = control_pb2.VertexLog(
                vertex=one.vertex, timestamp=one.timestamp, stream=one.stream,
                msg=f"\n[output clipped, {LARGEST_LOG >> 20} MiB of it are kept]\n".encode(),
            )  # fmt: skip
            message = control_pb2.StatusResponse(logs=[text])
        data = message.SerializeToString()
        made += struct.pack("<I", len(data)) + data
    return bytes(made)


def row_of(record: Any) -> Json:
    """Return what filters look at."""
    status = "completed"
    if not record.HasField("CompletedAt"):
        status = "running"
    elif record.HasField("error"):
        status = "canceled" if record.error.code == 1 else "error"
    attributes = record.FrontendAttrs
    return {"ref": record.Ref, "status": status, "repository": attributes.get("vcs:source") or attributes.get("context", "")}
