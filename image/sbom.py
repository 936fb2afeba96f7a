"""What is in an image: a package list to read, and a bill of materials (CycloneDX JSON) for scanners."""

import email
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, order=True)
class Component:
    """A package: `source` is its Debian source package, empty for a wheel."""

    name: str
    version: str
    arch: str
    source: str = ""

    @property
    def purl(self) -> str:
        """Return its package URL (https://github.com/package-url/purl-spec)."""
        version = self.version.replace("+", "%2B").replace(":", "%3A")
        if self.source:
            return f"pkg:deb/debian/{self.name}@{version}?arch={self.arch}&distro=trixie"
        return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{version}"


def components(root: Path, debs: Path, site_packages: Path) -> list[Component]:
    """Return what dpkg installed, what was only unpacked, and the Python packages, in order."""
    fields = "${Package}\t${Version}\t${Architecture}\t${source:Package}\n"
    query = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", fields]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    for deb in debs.glob("*.deb"):
        shown = ["dpkg-deb", "-W", f"--showformat={fields}", str(deb)]
        lines += subprocess.run(shown, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({*(Component(*line.split("\t")) for line in lines), *_wheels(site_packages)})


def _wheels(site_packages: Path) -> Iterator[Component]:
    for metadata in site_packages.glob("*.dist-info/METADATA"):
        head = email.message_from_string(metadata.read_text(errors="replace"))
        yield Component(head["Name"], head["Version"], "python")


def package_list(found: list[Component]) -> str:
    """Return one line for each package: name, version, architecture."""
    return "".join(f"{each.name} {each.version} {each.arch}\n" for each in found)


def bill_of_materials(found: list[Component], name: str, version: str, epoch: int) -> str:
    """Return a CycloneDX 1.5 document; see https://cyclonedx.org/docs/1.5/json/."""
    when = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    listed = [
        {
            "type": "library",
            "bom-ref": each.purl,
            "name": each.name,
            "version": each.version,
            "purl": each.purl,
        }
        for each in found
    ]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{name}-{version}-{package_list(found)}")
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "timestamp": when,
            "component": {"type": "operating-system", "name": name, "version": version},
        },
        "components": listed,
    }
    return json.dumps(document, indent=1) + "\n"
