"""The root file system: Debian packages, the kernel's modules, the program, and the files of image/files."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from image import program
from image.inputs import HERE, PROJECT, key, run, words

SUITE = "trixie"
# No package of the suite needs to look newer than this; what is newer gets this date.
BASE_EPOCH = "1767225600"


def make_base(arch: str, cache: Path) -> Path:
    """Install the packages with mmdebstrap, or take the tar that it made of the same lists before."""
    settings = [HERE / "packages/apt.conf", HERE / "packages/dpkg.cfg"]
    packages = words("packages/base.txt")
    tar = cache / f"root-{arch}-{key(*packages, *settings, SUITE, BASE_EPOCH)}.tar"
    if tar.exists():
        return tar
    archives = cache / f"archives-{arch}"
    archives.mkdir(parents=True, exist_ok=True)
    if arch != _host():
        _let_foreign_programs_run(program.MACHINES[arch])
    partial = tar.with_suffix(".partial.tar")
    run(
        "mmdebstrap", "--mode=root", "--variant=minbase", f"--architectures={arch}",
        "--components=main,non-free-firmware", f"--include={','.join(packages)}",
        f"--aptopt={settings[0]}", f"--dpkgopt={settings[1]}", "--skip=essential/unlink",
        f"--setup-hook={BACKPORTS}", f"--setup-hook={NO_KEYS}",
        f"--setup-hook=sync-in {archives} /var/cache/apt/archives/",
        f"--customize-hook=sync-out /var/cache/apt/archives {archives}",
        SUITE, partial, *_sources(),
        SOURCE_DATE_EPOCH=BASE_EPOCH, INITRD="No", TMPDIR=_scratch(),
    )  # fmt: skip
    partial.rename(tar)
    return tar


def _sources() -> list[str]:
    """Return where packages come from if MIRROR says so; mmdebstrap knows Debian's own places."""
    mirror = os.environ.get("MIRROR")
    suites = (SUITE, f"{SUITE}-updates") if mirror else ()
    return [f"deb {mirror} {suite} main non-free-firmware" for suite in suites]


BACKPORTS = (
    f"sed -n 's/{SUITE}-updates/{SUITE}-backports/p' \"$1\"/etc/apt/sources.list "
    '>"$1"/etc/apt/sources.list.d/backports.list'
)
# Making SSH host keys under emulation takes long, and each card makes its own at the first boot.
NO_KEYS = (
    'cd "$1" && mkdir -p var/cache/apt/archives etc/ssh && '
    "for kind in rsa ecdsa ed25519; do touch etc/ssh/ssh_host_${kind}_key etc/ssh/ssh_host_${kind}_key.pub; "
    "done"
)


def fetch_unpacked(arch: str, tar: Path, cache: Path) -> Path:
    """Fetch the packages that are only unpacked, with the host's apt, from the sources of the new system.

    Foreign programs run under qemu-user, which is slow: installed there, the kernel alone would take ten
    minutes, for an initrd that nobody needs.
    """
    names = [*words("packages/unpacked.txt"), *words(f"packages/unpacked-{arch}.txt")]
    folder = cache / f"unpacked-{arch}-{key(*names, tar.name)}"
    if folder.exists():
        return folder
    partial, root = folder.with_suffix(".partial"), cache / f"apt-{arch}"
    for old in (partial, root):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir()
    for state in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
        (root / state).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    run("tar", "-C", root, "-xf", tar, "./etc/apt", "./usr/share/keyrings")
    options = [
        "-qq", "-o", f"Dir={root}/", "-o", f"Dir::State::status={root}/var/lib/dpkg/status",
        "-o", f"APT::Architecture={arch}", "-o", f"APT::Architectures={arch}",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    run("apt-get", *options, "update")
    shown = subprocess.run(
        ["apt-cache", *options, "show", f"linux-image-{arch}/{SUITE}-backports"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kernel = re.findall(r"^Depends:.*linux-image-([0-9]\S*) ", shown, re.MULTILINE)[0]
    wanted = [name.replace("@KERNEL@", kernel) for name in names]
    subprocess.run(["apt-get", *options, "download", *wanted], cwd=partial, check=True)
    partial.rename(folder)
    return folder


def assemble(
    arch: str, base: Path, debs: Path, cache: Path, epoch: int, work: Path, update_key: Path | None
) -> str:
    """Lay out the root file system in work/root, and the unpacked packages in work/unpacked.

    Returns the kernel's version.
    """
    root, unpacked = work / "root", work / "unpacked"
    root.mkdir(parents=True)
    run("tar", "-C", root, "--exclude=./dev/*", "-xpf", base)
    for deb in sorted(debs.glob("*.deb")):
        run("dpkg-deb", "-x", deb, unpacked)
    (kernel,) = (path.name for path in (unpacked / "usr/lib/modules").iterdir())
    for folder in ("usr/lib/modules", "usr/lib/firmware"):
        if (unpacked / folder).exists():
            shutil.copytree(unpacked / folder, root / folder, symlinks=True, dirs_exist_ok=True)
    _drop(root, kernel)
    run("depmod", "-b", root, kernel)
    program.install(arch, root, cache, epoch)
    _set_up(arch, root, epoch)
    keys = root / "usr/share/dertwin"
    keys.mkdir()
    if update_key:
        (keys / "update-key.pub").write_bytes(Path(f"{update_key}.pub").read_bytes())
    return kernel


def _drop(root: Path, kernel: str) -> None:
    for pattern in words("drop.txt"):
        for path in root.glob(pattern.replace("@KERNEL@", kernel)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _set_up(arch: str, root: Path, epoch: int) -> None:
    """Add our files, units and users, without running anything of the target."""
    systemd = PROJECT / "systemd"
    laid = {path: path.relative_to(HERE / "files") for path in (HERE / "files").rglob("*") if path.is_file()}
    laid |= {unit: Path("usr/lib/systemd/system", unit.name) for unit in systemd.glob("*.service")}
    laid |= {rules: Path("usr/lib/udev/rules.d", rules.name) for rules in systemd.glob("*.rules")}
    for kind in ("sysusers", "tmpfiles"):
        laid[systemd / f"dertwin.{kind}"] = Path(f"usr/lib/{kind}.d/dertwin.conf")
    laid[PROJECT / "configs/demo_config.json"] = Path("etc/dertwin/site.json")
    for source, place in laid.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())  # not its mode, which is another one in each working copy
    (root / "etc/sudoers.d/bench").chmod(0o440)
    (root / "etc/dertwin-release").write_text(f"VERSION={program.read_version()}\nARCH={arch}\n")
    (root / "etc/machine-id").write_text("uninitialized\n")
    (root / "etc/hostname").write_text("dertwin\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("/run/systemd/resolve/stub-resolv.conf")
    if (database := root / "usr/lib/firmware/regulatory.db-debian").exists():
        for suffix in ("", ".p7s"):
            link = root / f"usr/lib/firmware/regulatory.db{suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"{database.name.removesuffix('-debian')}{suffix}-debian")
    for folder in ("boot/card", "data", "var/lib/dertwin", "var/log/journal", "var/lib/chrony"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    # Only ours: those of the packages are there, and the host's systemd may be older than they are.
    run("systemd-sysusers", f"--root={root}", "bench.conf", "dertwin.conf", SOURCE_DATE_EPOCH=str(epoch))
    units = words("units.txt")
    offline = ("systemctl", f"--root={root}", "--quiet")
    run(*offline, "enable", *(unit for unit in units if unit[0] != "-"))
    run(*offline, "mask", *(unit[1:] for unit in units if unit[0] == "-"))
    run(*offline, "set-default", "multi-user.target")
    # Nothing of /etc and /var waits for an update: else systemd does that work at each start.
    for marker in ("etc/.updated", "var/.updated"):
        (root / marker).touch()
    (root / "usr/lib/clock-epoch").touch()


def _let_foreign_programs_run(machine: str) -> None:
    """Register qemu-user with the kernel, where nothing has done so at the host's start."""
    registry = Path("/proc/sys/fs/binfmt_misc")
    if not (registry / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", registry)
    if not (registry / f"qemu-{machine}").exists():
        run("update-binfmts", "--enable", f"qemu-{machine}")


def _host() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _scratch() -> str:
    """Return a folder in memory if there is room for a root file system, else the usual one."""
    memory = Path("/dev/shm")
    return str(memory) if memory.exists() and shutil.disk_usage(memory).free > 3 << 30 else "/tmp"
