"""The program in its virtual environment: wheels as locked, our own, and bytecode of both."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from image.inputs import HERE, PROJECT, key, run

MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
PYTHON = "3.13"
APP = "opt/dertwin"
SITE_PACKAGES = f"{APP}/lib/python{PYTHON}/site-packages"
OURS = ("bench", "dertwin")


def install(arch: str, root: Path, cache: Path, epoch: int) -> None:
    """Make /opt/dertwin, and the command `dertwin`."""
    _install_wheels(arch, root, cache)
    own = root.parent / "wheel"
    build = ("wheel", "--no-deps", "--no-build-isolation", "-w", own, PROJECT)
    run(*_pip(), *build, SOURCE_DATE_EPOCH=str(epoch))
    site = root / SITE_PACKAGES
    run(*_pip(), "install", *_target(arch), "--no-index", "--upgrade", "--target", site, *own.glob("*.whl"))
    _clean(site)
    for path in site.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # a wheel keeps the modes of the working copy
    _compile(root, *(f"/{SITE_PACKAGES}/{name}" for name in OURS))

    binaries = root / APP / "bin"
    binaries.mkdir()
    (binaries / "python3").symlink_to(f"/usr/bin/python{PYTHON}")
    (binaries / "dertwin").write_text(
        f"#!/{APP}/bin/python3\nimport sys\n\nfrom bench.cli import main\n\nsys.exit(main())\n"
    )
    (binaries / "dertwin").chmod(0o755)
    (root / "usr/bin/dertwin").symlink_to(f"/{APP}/bin/dertwin")
    # Debian's python3-systemd is found too.
    (root / APP / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")


def read_version() -> str:
    """Return the version of the program."""
    text = (PROJECT / "dertwin/__init__.py").read_text()
    (version,) = re.findall(r'^__version__ = "(.*)"', text, re.MULTILINE)
    return str(version)


def _install_wheels(arch: str, root: Path, cache: Path) -> None:
    """Install the locked wheels, or what was installed of the same lock before: bytecode takes long."""
    lock = HERE / "wheels.lock"
    layer = cache / f"wheels-{arch}-{key(lock, PYTHON)}"
    site = root / SITE_PACKAGES
    if layer.exists():
        shutil.copytree(layer, site, symlinks=True)
        return
    run(*_pip(), "install", *_target(arch), "--require-hashes", "--target", site, "-r", lock)
    _clean(site)
    _compile(root, f"/{SITE_PACKAGES}")
    partial = layer.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(site, partial, symlinks=True)
    partial.rename(layer)


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def _target(arch: str) -> list[str]:
    """Return pip's options for wheels of another machine, of which nothing is run."""
    platforms = [f"--platform=manylinux{tag}_{MACHINES[arch]}" for tag in ("2014", "_2_17", "_2_28")]
    kind = ["--only-binary=:all:", "--no-deps", "--no-compile", "--implementation=cp"]
    return [*kind, f"--python-version={PYTHON}", *platforms]


def _clean(site: Path) -> None:
    """Remove what pip writes for itself, and commands for which the host's Python would be called."""
    shutil.rmtree(site / "bin", ignore_errors=True)
    for name in ("RECORD", "REQUESTED", "direct_url.json"):
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


def _compile(root: Path, *folders: str) -> None:
    """Make bytecode, which is the same for each machine but not for each minor version of Python.

    With the host's Python of that version (or the one in $PYTHON313) it takes seconds; the target's own under
    emulation takes minutes.
    """
    settings = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    python = os.environ.get("PYTHON313") or shutil.which(f"python{PYTHON}")
    if python and subprocess.run([python, "-V"], capture_output=True).returncode == 0:
        run(python, *settings, "-s", root, "-p", "/", *(f"{root}{folder}" for folder in folders))
    else:
        run("chroot", root, f"/usr/bin/python{PYTHON}", *settings, *folders)
