"""The health service that clients ask whether a connection works."""

from typing import Any

from barque.builder.buildkit.pb import health_pb2


class Health:
    """Serves grpc.health.v1.Health."""

    descriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]

    async def check(self, stream: Any) -> None:
        """Say that all is well."""
        await stream.recv_message()
        await stream.send_message(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING))
