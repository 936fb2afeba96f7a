"""Who may read the metrics, and over what: a web config file as Prometheus exporters have.

Keys as in the exporter toolkit of Prometheus (docs/web-configuration.md there): `tls_server_config`
and `basic_auth_users`. The file, and the certificates it names, are read again when they change.
"""

import asyncio
import hashlib
import os
import re
import secrets
import ssl
from pathlib import Path
from typing import Literal, NamedTuple

import bcrypt
import structlog
from pydantic import ValidationError, field_validator

from dertwin.config_errors import ConfigError, ConfigErrors, show, validation_errors
from dertwin.documents import read_document
from dertwin.schema import FrozenModel

log = structlog.get_logger()

_BCRYPT_HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_REMEMBERED_LOGINS = 100


class TlsServerConfig(FrozenModel):
    """Certificate and key (PEM; paths relative to the web config file), and whose clients may connect."""

    cert_file: str
    key_file: str
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = (
        "NoClientCert"
    )
    client_ca_file: str | None = None
    min_version: Literal["TLS12", "TLS13"] = "TLS12"


class WebConfig(FrozenModel):
    """What a web config file may say; users have the bcrypt hashes of their passwords."""

    tls_server_config: TlsServerConfig | None = None
    basic_auth_users: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it

    @field_validator("basic_auth_users")
    @classmethod
    def _hashes_are_bcrypt(cls, users: dict[str, str]) -> dict[str, str]:
        for name, hashed in users.items():
            if not _BCRYPT_HASH.fullmatch(hashed):
                raise ValueError(
                    f"the password of {show(name)} is no bcrypt hash; make one: htpasswd -nBC 10 {name}"
                )
        return users


class Web(NamedTuple):
    """A web config that was read: TLS context, if any, and users with their hashes."""

    tls: ssl.SSLContext | None
    users: dict[str, bytes]


OPEN = Web(None, {})


def read_web_config(path: Path) -> tuple[Web, tuple[Path, ...]]:
    """Read a web config file and its certificates; return it and all files that it came from.

    Raises ConfigErrors, one line for each fault.
    """
    document, errors = read_document(path)
    try:
        config = WebConfig.model_validate(document)
    except ValidationError as error:
        errors += validation_errors(error, WebConfig, document, str(path))
    if errors:
        raise ConfigErrors(errors)
    tls = config.tls_server_config
    named = (tls.cert_file, tls.key_file, tls.client_ca_file) if tls else ()
    files = tuple(path.parent / name for name in named if name is not None)
    users = {name: hashed.encode() for name, hashed in config.basic_auth_users.items()}
    return Web(_context(path, tls) if tls else None, users), (path, *files)


def _context(path: Path, config: TlsServerConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.min_version]
    errors = []
    for key in ("cert_file", "key_file", "client_ca_file"):
        name = getattr(config, key)
        try:
            if name is not None:
                (path.parent / name).read_bytes()
        except OSError as error:
            errors.append(_fault(path, key, f"{show(name)} cannot be read: {error.strerror}"))
    verify = _VERIFY[config.client_auth_type]
    if (verify is ssl.CERT_NONE) != (config.client_ca_file is None):
        message = "client_ca_file and a client_auth_type that verifies belong together"
        errors.append(_fault(path, "client_auth_type", message))
    if errors:
        raise ConfigErrors(errors)
    try:
        context.load_cert_chain(
            path.parent / config.cert_file,
            path.parent / config.key_file,
            password="",  # one that is encrypted is refused instead of asked for
        )
    except (ssl.SSLError, ValueError) as error:
        message = (
            f"{show(config.cert_file)} and {show(config.key_file)} are no certificate and its key: {error}"
        )
        raise ConfigErrors([_fault(path, "cert_file", message)]) from error
    if config.client_ca_file is not None:
        try:
            context.load_verify_locations(path.parent / config.client_ca_file)
        except ssl.SSLError as error:
            message = f"{show(config.client_ca_file)} has no certificate: {error}"
            raise ConfigErrors([_fault(path, "client_ca_file", message)]) from error
    context.verify_mode = verify
    return context


def _fault(path: Path, key: str, message: str) -> ConfigError:
    return ConfigError(str(path), f"tls_server_config.{key}", message)


class Access:
    """The web config in force: that of the file, or of its last good version; open without a file."""

    def __init__(self, path: Path | None) -> None:
        """Read the file. Raises ConfigErrors."""
        self._path = path
        self._web, self._files = read_web_config(path) if path else (OPEN, ())
        self._seen = self._stamps()
        self._salt = secrets.token_bytes(16)
        self._logins: dict[bytes, bool] = {}
        self._one_at_a_time = asyncio.Semaphore()

    def current(self) -> Web:
        """Return the web config as the file has it now; a broken one changes nothing and is logged once."""
        if self._path and (stamps := self._stamps()) != self._seen:
            self._seen = stamps
            try:
                self._web, self._files = read_web_config(self._path)
            except ConfigErrors as errors:
                for error in errors.errors:
                    log.error("web config refused, the last good one stays", problem=str(error))
            else:
                self._seen = self._stamps()  # it may name other files now
                self._logins.clear()
                log.info("web config read", file=str(self._path))
        return self._web

    async def admits(self, user: str, password: str) -> bool:
        """Tell whether a user may read; hashing is slow on purpose and runs beside the event loop."""
        users = self.current().users
        if not users:
            return True
        hashed = users.get(user) or next(iter(users.values()))  # an unknown user must take as long
        key = hashlib.sha256(b"\0".join((self._salt, user.encode(), hashed, password.encode()))).digest()
        if (known := self._logins.get(key)) is None:
            async with self._one_at_a_time:
                known = await asyncio.to_thread(_matches, password, hashed)
            if len(self._logins) >= _REMEMBERED_LOGINS:
                self._logins.clear()
            self._logins[key] = known
        return known and user in users

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._files]


def _matches(password: str, hashed: bytes) -> bool:
    try:
        # bcrypt looks at 72 bytes; the library refuses longer ones.
        return bcrypt.checkpw(password.encode()[:72], hashed)
    except ValueError:
        return False


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
