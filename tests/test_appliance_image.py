"""The image's parts, without building one: lists, files, disk, initrd, bundle. `make image-test` boots it."""

import configparser
import hashlib
import json
import lzma
import re
import stat
import subprocess
from pathlib import Path

import pytest

from image import boot, build, disk, initrd, sbom
from image.inputs import words

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "image"
FILES = IMAGE / "files"
UNITS = sorted(path for path in (FILES / "usr/lib/systemd/system").iterdir() if path.is_file())


def test_the_partitions_follow_each_other_and_the_last_can_grow() -> None:
    plan = disk.layout()
    place = plan["start_mib"]
    for partition in plan["partitions"]:
        assert partition["first_mib"] == place
        place += partition["size_mib"]
    names = [partition["name"] for partition in plan["partitions"]]
    assert names == ["card", "root-a", "root-b", "data"]
    assert plan["partitions"][1]["size_mib"] == plan["partitions"][2]["size_mib"]


def test_the_initrd_knows_the_places_of_the_layout() -> None:
    script = (IMAGE / "initrd/init").read_text()
    names = [partition["name"] for partition in disk.layout()["partitions"]]
    numbers = dict(re.findall(r"(a|b|card_number|data_number)[)=]\s*(?:root_number=)?(\d)", script))
    assert numbers == {"a": "2", "b": "3", "card_number": "1", "data_number": "4"}
    assert [names[int(number) - 1] for number in numbers.values()] == ["root-a", "root-b", "card", "data"]


@pytest.mark.parametrize("script", [IMAGE / "initrd/init"])
def test_scripts_can_be_parsed(script: Path) -> None:
    subprocess.run(["dash", "-n", script], check=True)
    assert script.stat().st_mode & stat.S_IXUSR


BUILTINS = (
    "case cd continue do done echo elif else esac exit export false fi for if printf return set then until"
)
NO_COMMANDS = r"^ *#.*|'[^']*'|(say|give_up) \"[^\"]*\"|\bexec\b"
COMMAND = r"(?:^|\$\(|[;|&{)]|\b(?:do|then|else|if|until)\b|\bxargs\b)[ \t]*([a-z_]+)(?= |;|$)"


def test_the_initrd_has_each_command_that_its_script_calls() -> None:
    text = (IMAGE / "initrd/init").read_text()
    script = re.sub(NO_COMMANDS, "", text, flags=re.MULTILINE)
    functions = re.findall(r"^(\w+)\(\)", script, re.MULTILINE)
    called = {"sh", *re.findall(COMMAND, script, re.MULTILINE)} - {*functions, *BUILTINS.split()}
    assert called == {applet for each in initrd.APPLETS.values() for applet in each.split()}


@pytest.mark.parametrize("name", [path.name for path in sorted((IMAGE / "packages").glob("*.txt"))])
def test_no_package_is_listed_twice(name: str) -> None:
    listed = words(f"packages/{name}")
    assert listed
    assert len(set(listed)) == len(listed)


def test_the_locked_wheels_are_what_the_project_asks_for() -> None:
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[>=; ]", each)[0].lower() for each in wanted}
    lock = (IMAGE / "wheels.lock").read_text()
    locked = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
    assert names <= locked
    assert lock.count("--hash=sha256:") >= len(locked)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_our_units_have_no_unknown_keys(unit: Path, tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
    (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], capture_output=True, text=True
    )
    assert unit.name not in done.stderr, done.stderr


def test_units_that_start_are_there() -> None:
    ours = {path.name for path in UNITS} | {path.name for path in (ROOT / "systemd").glob("*.service")}
    listed = {unit for unit in words("units.txt") if unit.startswith("dertwin")}
    assert listed <= ours
    for unit in (unit for unit in UNITS if unit.name in listed):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string(unit.read_text())
        assert parser["Install"]["WantedBy"]


def test_the_firewall_that_waits_for_the_set_up_is_good() -> None:
    rules = FILES / "etc/nftables.conf"
    done = subprocess.run(["nft", "--check", "-f", rules], capture_output=True, text=True)
    # Without the right to look at the kernel's own rules only the syntax is checked.
    assert "syntax error" not in done.stderr
    assert "policy drop" in rules.read_text()


def test_the_same_files_make_the_same_disk(tmp_path: Path) -> None:
    made = []
    for turn in ("first", "second"):
        folder = tmp_path / turn
        (folder / "tree/dertwin").mkdir(parents=True)
        (folder / "tree/dertwin/site.json").write_text("{}")
        plan = {partition["name"]: partition for partition in disk.layout()["partitions"]}
        disk.make_fat(folder / "tree", plan["card"], 1_700_000_000, folder / "card")
        disk.make_squashfs(folder / "tree", 1_700_000_000, folder / "root")
        disk.make_ext4(plan["data"], 1_700_000_000, folder / "data")
        parts = {
            name: folder / part for name, part in (("card", "card"), ("root-a", "root"), ("data", "data"))
        }
        disk.make_disk(parts, folder / "disk.img")
        with (folder / "disk.img").open("rb") as file:
            made.append(
                (file.read(512), *(hashlib.sha256(part.read_bytes()).digest() for part in parts.values()))
            )
        last = folder / "disk.img"
    assert made[0] == made[1]
    table = subprocess.run(["sfdisk", "--dump", last], capture_output=True, text=True, check=True).stdout
    assert f"label-id: {disk.layout()['disk_id']:#x}" in table
    shown = subprocess.run(
        ["mtype", "-i", f"{last}@@4M", "::dertwin/site.json"], capture_output=True, check=True
    )
    assert shown.stdout == b"{}"


def test_a_root_file_system_that_is_too_large_is_refused(tmp_path: Path) -> None:
    big = tmp_path / "root"
    with big.open("wb") as file:
        file.truncate(513 * disk.MIB)
    with pytest.raises(ValueError, match="larger than 512 MiB"):
        disk.make_disk({"root-a": big}, tmp_path / "disk.img")


def test_the_initrd_holds_wanted_modules_and_what_they_need(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules/6.0"
    (modules / "kernel").mkdir(parents=True)
    for name in ("ext4", "jbd2", "sound"):
        (modules / f"kernel/{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
    (modules / "modules.dep").write_text(
        "kernel/ext4.ko.xz: kernel/jbd2.ko.xz\nkernel/jbd2.ko.xz:\nkernel/sound.ko.xz:\n"
    )
    (modules / "modules.alias").write_text("alias fs-ext4 ext4\nalias pci:* sound\n")
    (tmp_path / "busybox").write_text("a shell")
    initrd.make_initrd(tmp_path, "6.0", tmp_path / "busybox", tmp_path / "initrd")
    archive = subprocess.run(["zstd", "-dcq", tmp_path / "initrd"], capture_output=True, check=True).stdout
    assert b"lib/modules/6.0/kernel/jbd2.ko\0" in archive
    assert b"alias fs-ext4 ext4\n" in archive
    assert b"sound" not in archive
    assert b"switch_root /sysroot" in archive


def kernel_of(size: int) -> bytes:
    """Return the head of a kernel that takes so much memory (bytes)."""
    return bytes(16) + size.to_bytes(8, "little")


def test_a_kernel_that_would_reach_to_the_initrd_is_refused(tmp_path: Path) -> None:
    kernel = tmp_path / "usr/lib/modules/6.0"
    kernel.mkdir(parents=True)
    (kernel / "vmlinuz").write_bytes(kernel_of(65 << 20))
    with pytest.raises(ValueError, match=r"takes 65 MiB; give the initrd a higher address in boot\.cmd"):
        boot.make_slot("arm64", tmp_path, "6.0", tmp_path / "initrd", tmp_path / "slot")


def sudo_allows(command: str) -> bool:
    """Tell whether the operator may run a command; arguments from ^ to $ are a pattern."""
    rules = (FILES / "etc/sudoers.d/bench").read_text().partition("NOPASSWD: ")[2].replace("\\\n", "")
    programs = (rule.strip().partition(" ^") for rule in rules.split(","))
    patterns = [
        re.escape(program) + (f" {pattern}" if caret else "$") for program, caret, pattern in programs
    ]
    return any(re.match(pattern, command) for pattern in patterns)


@pytest.mark.parametrize(
    "arguments",
    ["site put site.json", "site put -", "site rollback", "site show", "update -", "update x.bundle"],
)
def test_the_operator_may_change_site_and_version(arguments: str) -> None:
    assert sudo_allows(f"/usr/bin/dertwin {arguments}")
    assert sudo_allows("/usr/bin/systemctl restart dertwin")


@pytest.mark.parametrize(
    "arguments",
    [
        "site put --root /tmp x",
        "site put x --root=/tmp",
        "site show --root /tmp",
        "update --partition /dev/sda x",
        "update x --root /tmp",
        "run -c x",
        "appliance setup",
    ],
)
def test_the_operator_may_not_say_where_root_is(arguments: str) -> None:
    assert not sudo_allows(f"/usr/bin/dertwin {arguments}")


def test_the_command_line_names_disk_and_slot(tmp_path: Path) -> None:
    kernel = tmp_path / "unpacked/usr/lib/modules/6.0"
    (kernel / "dtb/broadcom").mkdir(parents=True)
    (kernel / "vmlinuz").write_bytes(kernel_of(1 << 20))
    (kernel / "dtb/broadcom/bcm2711-rpi-4-b.dtb").write_text("tree")
    (tmp_path / "initrd").write_text("initrd")
    slot = boot.make_slot("arm64", tmp_path / "unpacked", "6.0", tmp_path / "initrd", tmp_path / "slot")
    firmware = tmp_path / "unpacked/usr/lib/u-boot/rpi_arm64"
    firmware.mkdir(parents=True)
    (firmware / "u-boot.bin").write_text("loader")
    boot.make_card("arm64", tmp_path / "unpacked", "6.0", slot, 1_700_000_000, tmp_path / "card")
    words = (tmp_path / "card/a/cmdline.txt").read_text().split()
    assert {"dertwin.disk=d3271e00", "dertwin.slot=a"} <= set(words)
    assert "@" not in " ".join(words)
    assert (tmp_path / "card/bcm2711-rpi-4-b.dtb").exists()
    assert (tmp_path / "card/slot.txt").read_text() == "slot=a\n"
    assert b"dertwin.slot" not in (tmp_path / "card/boot.scr").read_bytes()  # it is in the command line
    assert "kernel=u-boot.bin" in (tmp_path / "card/config.txt").read_text()


def test_the_bill_of_materials_names_each_package() -> None:
    found = [sbom.Component("bash", "5.2+1", "arm64", "bash"), sbom.Component("PyYAML", "6.0", "python")]
    bill = json.loads(sbom.bill_of_materials(found, "dertwin-arm64", "1", 1_700_000_000))
    assert bill["specVersion"] == "1.5"
    assert [each["purl"] for each in bill["components"]] == [
        "pkg:deb/debian/bash@5.2%2B1?arch=arm64&distro=trixie",
        "pkg:pypi/pyyaml@6.0",
    ]
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_the_date_of_a_build_is_that_of_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert build.commit_time() == 1_700_000_000


def test_the_initrd_moves_the_end_of_the_data_partition_to_the_end_of_the_disk(tmp_path: Path) -> None:
    script = (IMAGE / "initrd/init").read_text()
    (function,) = re.findall(r"^grow_data\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    disk.make_disk({}, tmp_path / "disk")
    with (tmp_path / "disk").open("r+b") as file:
        file.truncate(4096 * disk.MIB)
    last = disk.layout()["partitions"][-1]
    facts = {"start": last["first_mib"] * 2048, "size": last["size_mib"] * 2048}
    sizes = {f"class/block/disk4/{fact}": value for fact, value in facts.items()}
    for path, value in (sizes | {"block/disk/size": 4096 * 2048}).items():
        (tmp_path / "sys" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / path).write_text(f"{value}\n")
    function = function.replace("/sys/", f"{tmp_path}/sys/").replace("/dev/$disk", f"{tmp_path}/$disk")
    steps = f"blockdev() {{ :; }}\nsync() {{ :; }}\n{function}\ndisk=disk\ngrow_data /dev/disk4"
    subprocess.run(["dash", "-c", steps], check=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", tmp_path / "disk"], capture_output=True).stdout)
    grown = table["partitiontable"]["partitions"][3]
    assert (grown["start"], grown["start"] + grown["size"]) == (facts["start"], 4096 * 2048)
