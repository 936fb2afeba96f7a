"""What the tests of the image share: one machine at its first boot, one with a site on serial lines."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.test.card import Card
from image.test.figures import Figures
from image.test.probes import wait_for_site, wait_until_ready
from image.test.site_files import BENCH_YAML, KEY, SITE
from image.test.vm import Vm

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / "build/image-test"
SSH, MODBUS, METRICS = 22, (55001, 55002, 55003), 9555
FORWARD = (SSH, *MODBUS, METRICS, 55011)


@pytest.fixture(scope="session")
def image() -> Path:
    """Return the image that `make image` has made."""
    found = sorted((ROOT / "build").glob("dertwin-*-arm64.img"), key=lambda path: path.stat().st_mtime)
    assert found, "make image comes first"
    return found[-1]


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Collect what is measured; it goes into docs/image.md when all tests have passed."""
    collected = Figures()
    yield collected
    if request.session.testsfailed == 0 and request.config.getoption("--publish"):
        collected.publish(ROOT / "docs/image.md")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --publish: write the figures into docs/image.md."""
    parser.addoption("--publish", action="store_true")


@pytest.fixture(scope="session")
def first_boot(image: Path, figures: Figures) -> Iterator[Vm]:
    """Boot a card just flashed, with nothing on it changed; the machine is ready when this returns."""
    card = Card(image, WORK / "first")
    with Vm(card, forward=FORWARD) as vm:
        packed = image.with_name(image.name + ".xz").stat().st_size
        figures["image to download"] = f"{packed / 2**20:.0f} MiB"
        figures["kernel started"] = vm.wait_for_console("Linux version|initrd:")
        vm.wait_for_shell()
        wait_until_ready(vm)
        figures["first boot: ready after power-on"] = vm.seconds_since_power_on()
        figures["first boot: CPU time of the emulator until then"] = vm.seconds_of_cpu()
        yield vm


@pytest.fixture(scope="session")
def key() -> Path:
    """Return an SSH key of the operator; its public half is on the card."""
    WORK.mkdir(parents=True, exist_ok=True)
    key = WORK / KEY
    for old in (key, key.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", key], check=True)
    return key


@pytest.fixture(scope="session")
def bench_card(image: Path, key: Path) -> Card:
    """Return a card with a site of two serial lines and an operator's key, put there with a laptop."""
    card = Card(image, WORK / "bench")
    card.write("dertwin/site.json", SITE)
    card.write("dertwin/bench.yaml", BENCH_YAML.format(key=key.with_suffix(".pub").read_text().strip()))
    return card


@pytest.fixture(scope="session")
def booted_bench(bench_card: Card) -> Iterator[Vm]:
    """Boot that card, and keep the ready machine as a snapshot."""
    with Vm(bench_card, forward=FORWARD) as vm:
        vm.wait_for_shell()
        wait_for_site(vm, "two-lines")
        vm.snapshot("booted")
        yield vm


@pytest.fixture
def bench(booted_bench: Vm) -> Vm:
    """Return the machine as it was right after its boot; the site's lines wait for their adapters."""
    booted_bench.unplug_all()
    booted_bench.snapshot("booted", restore=True)
    return booted_bench
