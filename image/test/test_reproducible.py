"""The same commit makes the same image: all but the cached base is built twice and compared."""

import filecmp
import shutil
from pathlib import Path

from image import build
from image.test.conftest import WORK


def test_two_builds_are_the_same_to_the_byte(image: Path) -> None:
    folders = [WORK / "build-1", WORK / "build-2"]
    made = [build.build("arm64", folder, folder / "work", build.commit_time(), None) for folder in folders]
    for name in ("image", "packages", "bill"):
        assert filecmp.cmp(getattr(made[0], name), getattr(made[1], name), shallow=False), name
    for folder in folders:
        shutil.rmtree(folder)
