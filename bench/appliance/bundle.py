"""The bundle that updates a box: a tar of a root file system and boot files, signed.

Its first member is `manifest.json` with version, architecture, and size and SHA-256 of each other
member; the second, `manifest.sig`, is the manifest's signature as `ssh-keygen -Y sign` makes it.
"""

import contextlib
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field, StringConstraints, ValidationError, field_validator

from dertwin.schema import FrozenModel

ROOT_IMAGE = "root.squashfs"
_NAMESPACE = "dertwin-update"
_SIGNER = "update"
_MOST_BYTES = 1 << 20
_NAME = re.compile(rf"{re.escape(ROOT_IMAGE)}|boot/[A-Za-z0-9][A-Za-z0-9._+-]*")
CHUNK_BYTES = 1 << 20


class BadBundle(Exception):
    """The file is no bundle for this box; the message says why, and what helps."""


class Member(FrozenModel):
    """A file of the bundle."""

    size: int = Field(ge=0)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(FrozenModel):
    """What is in a bundle: `version` is N.N.N, `files` are root.squashfs and boot/NAME."""

    version: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)*([.+-]?[a-z0-9]+)*$")]
    arch: str
    files: dict[str, Member]

    @field_validator("files")
    @classmethod
    def _are_those_of_a_slot(cls, files: dict[str, Member]) -> dict[str, Member]:
        if odd := [name for name in files if not _NAME.fullmatch(name)]:
            raise ValueError(f"{odd[0]!r} is no file of a slot")
        if missing := {ROOT_IMAGE, "boot/vmlinuz", "boot/initrd.img", "boot/cmdline.txt"} - files.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
        return files

    @property
    def boot_bytes(self) -> int:
        """Return how much (bytes) the boot files take."""
        return sum(member.size for name, member in self.files.items() if name != ROOT_IMAGE)


def make_bundle(out: Path, version: str, arch: str, files: Mapping[str, Path], key: Path, epoch: int) -> None:
    """Write a bundle of files by name, signed with an OpenSSH private key; `epoch` (s) is the time of all.

    Raises OSError, CalledProcessError, and ValidationError for files that are not those of a slot.
    """
    members = {
        name: Member(size=path.stat().st_size, sha256=_sha256(path)) for name, path in sorted(files.items())
    }
    manifest = Manifest(version=version, arch=arch, files=members)
    text = json.dumps(manifest.model_dump(), indent=1).encode() + b"\n"
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", _NAMESPACE]
    signature = subprocess.run(command, input=text, capture_output=True, check=True).stdout
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {"manifest.json": text, "manifest.sig": signature}.items():
            tar.addfile(_entry(name, len(data), epoch), io.BytesIO(data))
        for name, path in sorted(files.items()):
            with path.open("rb") as file:
                tar.addfile(_entry(name, path.stat().st_size, epoch), file)


def _entry(name: str, size: int, epoch: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, epoch
    return entry


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bundle:
    """A bundle that is read once, from front to back; its manifest is known to be genuine."""

    def __init__(self, stream: IO[bytes], keys: Path) -> None:
        """Read the manifest and verify its signature against public keys. Raises BadBundle."""
        try:
            self._tar = tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115 - it ends with the stream
            text = self._begin("manifest.json")
            _verify(text, self._begin("manifest.sig"), keys)
            self.manifest = Manifest.model_validate_json(text)
        except (tarfile.TarError, EOFError) as error:
            raise BadBundle(f"this is no bundle: {error}") from error
        except ValidationError as error:
            raise BadBundle(f"its manifest does not fit this version of dertwin: {error}") from error

    def _begin(self, name: str) -> bytes:
        member = self._tar.next()
        if member is None or member.name != name or not member.isreg() or member.size > _MOST_BYTES:
            raise BadBundle("this is no bundle: it does not begin with manifest.json and manifest.sig")
        file = self._tar.extractfile(member)
        assert file is not None
        return file.read()

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the name of each file and its contents, which must be taken before the next one.

        Raises BadBundle at the end of what is not as the manifest has it: then what was taken is worthless.
        """
        left = dict(self.manifest.files)
        while (member := self._next()) is not None:
            expected = left.pop(member.name, None)
            if expected is None or not member.isreg() or member.size != expected.size:
                raise _changed(member.name)
            yield member.name, self._checked(member, expected)
        if left:
            raise BadBundle(f"it is cut off: {', '.join(sorted(left))} is missing; copy the file again")

    def _next(self) -> tarfile.TarInfo | None:
        with _whole():
            return self._tar.next()

    def _checked(self, member: tarfile.TarInfo, expected: Member) -> Iterator[bytes]:
        file = self._tar.extractfile(member)
        assert file is not None
        digest = hashlib.sha256()
        while True:
            with _whole():
                chunk = file.read(CHUNK_BYTES)
            if not chunk:
                break
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != expected.sha256:
            raise _changed(member.name)


def _changed(name: str) -> BadBundle:
    return BadBundle(f"{name} in it is not as its manifest says; copy the file again")


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise BadBundle(f"it is cut off or damaged ({error}); copy the file again") from error


def _verify(text: bytes, signature: bytes, keys: Path) -> None:
    try:
        lines = [line for line in keys.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except OSError:
        lines = []
    if not lines:
        raise BadBundle(f"this box takes no updates: it has no public key in {keys}")
    with tempfile.TemporaryDirectory() as folder:
        signers, signed = Path(folder, "signers"), Path(folder, "signature")
        signers.write_text("".join(f'{_SIGNER} namespaces="{_NAMESPACE}" {line}\n' for line in lines))
        signed.write_bytes(signature)
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", _SIGNER]
        command += ["-n", _NAMESPACE, "-s", str(signed)]
        if subprocess.run(command, input=text, capture_output=True, check=False).returncode:
            raise BadBundle(f"its signature is not by a key of this box ({keys}); it is not used")
