"""What goes with an error of gRPC besides its text."""

from typing import Any

from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase

from barque.builder.buildkit.pb import status_pb2

Details = list[tuple[str, bytes]]


class DetailsCodec(StatusDetailsCodecBase):
    """Details of errors as pairs of a type's name and bytes."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        """Return the message of the header that carries them."""
        made = status_pb2.Status(code=status.value, message=message or "")
        for name, value in details or []:
            made.details.add(type_url=name, value=value)
        return made.SerializeToString()

    def decode(self, status: Status, message: str | None, data: bytes) -> Details:
        """Return the pairs; none where what came is not understood."""
        try:
            return [(one.type_url, one.value) for one in status_pb2.Status.FromString(data).details]
        except ValueError:
            return []
