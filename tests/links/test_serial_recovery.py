"""Serial ports that are absent, vanish, come back, or are no serial ports."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bus import Bus
from support.lines import pair
from support.processes import children, cpu_share
from support.service import Service, free_port, service, wait_for
from support.sites import READ_SETPOINT, battery, rtu, site
from support.tcp import ask

from bench.links.link import LinkDown
from bench.links.pty import virtual_pair
from bench.links.serial import SerialLink
from bench.ports import PortWatcher
from dertwin.bindings import RtuBinding
from dertwin.modbus.rtu import frame

NOBODY = 65534
BACK_WITHIN_S = 2.0


def served_on(path: Path | str) -> bool:
    """Tell whether unit 1 answers on a line; what does not exist does not answer."""
    try:
        client = Bus(str(path))
    except OSError:
        return False
    try:
        client.send(frame(1, READ_SETPOINT))
        return len(client.receive(7, 0.2)) == 7
    except OSError:  # the line went while we listened
        return False
    finally:
        client.close()


def wait_until_served(path: Path | str) -> None:
    wait_for(lambda: served_on(path), BACK_WITHIN_S, f"a reply on {path}")


def states(running: Service, port: Path | str) -> list[str]:
    """Return the changes of state of a line as its log tells them."""
    return [
        line["event"].removeprefix("link ") for line in running.log() if line.get("link") == f"rtu {port}"
    ]


def test_a_port_that_comes_and_goes_is_served_within_two_seconds_and_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    port = free_port()
    with pair(tmp_path / "usb0") as line:
        config = site(tmp_path, battery({"port": port}), battery(rtu(line.port)))
        with service(config, tmp_path) as running:
            assert any("usb0: does not exist; plug the adapter in" in told for told in running.lines)
            assert cpu_share(running.process.pid, during_s=2.0) < 0.05
            for _ in range(2):
                line.appear()
                wait_until_served(line.client)
                assert len(ask(port)) == 4
                line.vanish()
                wait_for(lambda: states(running, line.port)[-1] == "down")
            assert states(running, line.port) == ["down", "up", "down", "up", "down"]
            assert running.stop()[0] == 0
            (stopped,) = running.events("stopped")
            assert stopped["skipped"] == 0
            assert stopped["late"] <= 2  # by a whole step: the scheduler of a busy test machine


def test_a_port_whose_path_leads_elsewhere_is_left_for_the_new_one(tmp_path: Path) -> None:
    with pair(tmp_path / "ttyA") as first, pair(tmp_path / "ttyB") as second:
        first.appear()
        second.appear()
        port = tmp_path / "by-id"
        port.symlink_to(first.port)
        with service(site(tmp_path, battery(rtu(port))), tmp_path) as running:
            wait_until_served(first.client)
            port.unlink()
            port.symlink_to(second.port)
            wait_until_served(second.client)
            assert states(running, port) == ["up", "down", "up"]
            port.unlink()
            wait_for(lambda: states(running, port)[-1] == "down")
            port.symlink_to(first.port)
            wait_until_served(first.client)


@pytest.mark.parametrize(
    "way", ["socat is killed", "socat is told to end", "our end is removed", "its end is removed"]
)
def test_a_virtual_pair_is_made_again_whatever_happens_to_it(tmp_path: Path, way: str) -> None:
    port = tmp_path / "line"
    with service(site(tmp_path, battery(rtu(port, fallback="pty"))), tmp_path) as running:
        wait_until_served(f"{port}_client")
        (socat,) = children(running.process.pid)
        if "socat" in way:
            os.kill(socat, signal.SIGKILL if "killed" in way else signal.SIGTERM)
        else:
            (port if "our" in way else Path(f"{port}_client")).unlink()
        wait_for(lambda: len(states(running, port)) == 3, BACK_WITHIN_S, "a new pair")
        wait_until_served(f"{port}_client")
        assert states(running, port) == ["up", "down", "up"]
        assert children(running.process.pid) != [socat]
        assert len(children(running.process.pid)) == 1


@pytest.mark.parametrize("turns", range(1, 9))
def test_a_pair_that_is_given_up_while_it_is_made_leaves_nothing_behind(tmp_path: Path, turns: int) -> None:
    async def hold() -> None:
        async with virtual_pair(str(tmp_path / "line")):
            await asyncio.Event().wait()

    async def give_up() -> None:
        holding = asyncio.create_task(hold())
        for _ in range(turns):
            await asyncio.sleep(0)
        # While the loop stands still here, socat, if it has been started, makes its links.
        if children(os.getpid()):
            wait_for(lambda: os.path.lexists(tmp_path / "line_client"))
        holding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await holding

    asyncio.run(give_up())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def device_folder() -> Iterator[Path]:
    """A folder below /dev where a test may make names: what is missing there gets its pair in /tmp."""
    folder = Path("/dev/shm") / f"dertwin-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_pair_in_place_of_an_adapter_makes_way_when_the_adapter_comes(
    device_folder: Path, tmp_path: Path
) -> None:
    adapter = device_folder / f"tty{uuid.uuid4().hex[:8]}"
    stand_in = Path(f"/tmp/dertwin_{adapter.name}_client")
    with pair(tmp_path / "real") as line:
        with service(site(tmp_path, battery(rtu(adapter, fallback="pty"))), tmp_path) as running:
            wait_until_served(stand_in)
            line.appear()
            adapter.symlink_to(line.port)
            wait_until_served(line.client)
            wait_for(lambda: not stand_in.is_symlink())
            adapter.unlink()
            wait_until_served(stand_in)
            assert states(running, adapter) == ["up", "down", "up", "down", "up"]
        assert list(device_folder.iterdir()) == []


def test_what_is_no_serial_port_is_named_once_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "taken_client").write_text("precious")
    (tmp_path / "unplugged").symlink_to("/dev/ttyUSB_that_is_not_there")
    expected = {
        "file": "is not a serial port",
        "folder": "is not a serial port",
        "pipe": "is not a serial port",
        "nowhere": "does not exist; plug the adapter in, or run with --fallback pty for a virtual pair",
        "taken": "taken_client exists and is not a virtual port; move it away or choose another port",
        "unplugged": "unplugged exists and is not a virtual port; move it away or choose another port",
        "missing/line": "socat failed: No such file or directory",
        "a,b": "must not contain ',', ':' or '!'",
    }
    with_pair = ("taken", "unplugged", "missing/line", "a,b")
    lines = [rtu(tmp_path / name, fallback="pty" if name in with_pair else "none") for name in expected]
    with service(site(tmp_path, *map(battery, lines)), tmp_path) as running:
        assert cpu_share(running.process.pid, during_s=2.0) < 0.05
        down = {line["link"]: line["reason"] for line in running.events("link down")}
        assert len(running.events("link down")) == len(expected)
        assert running.stop()[0] == 0
    for name, reason in expected.items():
        assert reason in down[f"rtu {tmp_path / name}"]
    assert (tmp_path / "file").read_text() == (tmp_path / "taken_client").read_text() == "precious"
    assert (tmp_path / "unplugged").is_symlink()


@contextlib.contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Take the right to open a port from this process: from root by being somebody else for a while."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        mode = path.stat().st_mode
        path.chmod(0)
        yield
        path.chmod(mode)


def test_a_port_without_permission_says_what_helps(tmp_path: Path) -> None:
    with pair(tmp_path / "port") as line:
        line.appear()
        link = SerialLink(RtuBinding(kind="modbus_rtu", port=str(line.port)), PortWatcher())
        with (
            forbidden(line.port),
            pytest.raises(LinkDown, match="denied; add this user to the group"),
        ):
            asyncio.run(link.serve(lambda where: None))


# As where there is no udev: on another system than Linux, or without its library.
WITHOUT_UDEV = "import sys; sys.modules['pyudev'] = None; from bench.cli import main; sys.exit(main())"


def test_without_udev_a_match_says_so_and_paths_and_virtual_pairs_work(tmp_path: Path) -> None:
    serial = f"FT{os.getpid()}"
    lines = [rtu(tmp_path / "line", fallback="pty"), rtu("usb:FT1"), rtu(f"usb:{serial}", fallback="pty")]
    command = (sys.executable, "-c", WITHOUT_UDEV, "run")
    with service(site(tmp_path, *map(battery, lines)), tmp_path, command=command) as running:
        assert served_on(tmp_path / "line_client")
        assert served_on(f"/tmp/dertwin_usb-{serial}_client")
        (down,) = running.events("link down")
        reason = "there is no udev here to find ports with; give the path of the port"
        assert (down["link"], down["reason"]) == ("rtu usb:FT1", reason)
        assert cpu_share(running.process.pid, during_s=1.5) < 0.05
        assert states(running, f"usb:{serial}") == ["up"], "looking for the adapter costs the pair nothing"
