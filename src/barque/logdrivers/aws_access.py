"""Access to AWS: credentials as its tools look for them, and signatures of version 4."""

import configparser
import hashlib
import hmac
import json
import os
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from barque.base.times import parse_ns
from barque.logdrivers.connection import HttpClient
from barque.logdrivers.entry import DriverError

_CONTAINER_ENDPOINT = "http://169.254.170.2"
_METADATA = "http://169.254.169.254"
_EARLY_S = 300


class Credentials(NamedTuple):
    """A key, its secret, a session's token, and when they end (seconds since the epoch, 0 never)."""

    key: str
    secret: str
    token: str = ""
    ends_s: float = 0.0


class CredentialSource:
    """Finds credentials: an endpoint, the environment, the shared file, the machine's role."""

    def __init__(self, environment: dict[str, str], endpoint_path: str = "") -> None:
        self._environment = environment
        path = endpoint_path or environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
        self._url = _CONTAINER_ENDPOINT + path if path else environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
        self._found: Credentials | None = None

    def get(self) -> Credentials:
        """Return credentials that are valid for a while.

        Raises:
            DriverError: there are none.
        """
        found = self._found
        if found is None or (found.ends_s and time.time() > found.ends_s - _EARLY_S):
            found = self._found = self._look()
        return found

    def _look(self) -> Credentials:
        env = self._environment
        if self._url:
            return _of_endpoint(self._url)
        if env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
            return Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env.get("AWS_SESSION_TOKEN", ""))
        path = env.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(env.get("HOME", "/root"), ".aws/credentials")
        return _of_file(path, env.get("AWS_PROFILE") or "default") or _of_machine()


def _of_file(path: str, profile: str) -> Credentials | None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        row = parser[profile]
        return Credentials(row["aws_access_key_id"], row["aws_secret_access_key"], row.get("aws_session_token", ""))
    except (KeyError, configparser.Error, OSError, ValueError):
        return None


def _of_endpoint(url: str) -> Credentials:
    parts = urlsplit(url)
    status, body = HttpClient(url).request("GET", parts.path or "/", None, {"Accept": "application/json"})
    if status != 200:
        raise DriverError(f"failed to load credentials: {url} answered with status {status}")
    return _of_json(body)


def _of_json(body: bytes) -> Credentials:
    try:
        row = json.loads(body)
        ends_s = parse_ns(row["Expiration"]) / 1e9 if row.get("Expiration") else 0.0
        return Credentials(row["AccessKeyId"], row["SecretAccessKey"], row.get("Token") or "", ends_s)
    except (ValueError, KeyError, TypeError):
        raise DriverError("failed to load credentials: the answer holds none") from None


def _of_machine() -> Credentials:
    client = HttpClient(_METADATA)
    try:
        headers = {"X-aws-ec2-metadata-token": metadata_token(client)}
        path = "/latest/meta-data/iam/security-credentials/"
        status, role = client.request("GET", path, None, headers)
        if status != 200:
            raise DriverError("no role")
        return _of_json(client.request("GET", path + role.decode().splitlines()[0], None, headers)[1])
    except (DriverError, IndexError, UnicodeDecodeError):
        raise DriverError("failed to refresh cached credentials, no valid credentials were found: set "
                          "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the daemon, or write them to "
                          "~/.aws/credentials") from None  # fmt: skip
    finally:
        client.close()


def metadata_token(client: HttpClient) -> str:
    """Return a token for the machine's metadata service.

    Raises:
        DriverError: this is no EC2 machine.
    """
    status, token = client.request("PUT", "/latest/api/token", b"", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    if status != 200:
        raise DriverError("the metadata service gives no token")
    return token.decode()


def region_of_machine() -> str:
    """Return the region of the EC2 machine that this is.

    Raises:
        DriverError: it is none.
    """
    client = HttpClient(_METADATA)
    try:
        headers = {"X-aws-ec2-metadata-token": metadata_token(client)}
        status, text = client.request("GET", "/latest/meta-data/placement/region", None, headers)
    except DriverError as error:
        raise DriverError(f"cannot determine region for awslogs driver: {error}") from None
    finally:
        client.close()
    if status != 200:
        raise DriverError("cannot determine region for awslogs driver")
    return text.decode()


def sign(
    credentials: Credentials, region: str, service: str, host: str, headers: dict[str, str], body: bytes, now_s: float
) -> dict[str, str]:
    """Return the headers of a POST to `/` with those of AWS's signature, version 4, added."""
    moment = time.gmtime(now_s)
    stamp, day = time.strftime("%Y%m%dT%H%M%SZ", moment), time.strftime("%Y%m%d", moment)
    signed = {**headers, "Host": host, "X-Amz-Date": stamp}
    if credentials.token:
        signed["X-Amz-Security-Token"] = credentials.token
    folded = sorted((key.lower(), value.strip()) for key, value in signed.items())
    names = ";".join(key for key, _ in folded)
    listed = "".join(f"{key}:{value}\n" for key, value in folded)
    request = f"POST\n/\n\n{listed}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    signed["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return signed
