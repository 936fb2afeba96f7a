"""The same image on the machine type of a Raspberry Pi 3: its card reader, its USB, its serial port."""

from pathlib import Path

from image.test.card import Card
from image.test.figures import Figures
from image.test.probes import read_rtu, wait_until_ready, wire
from image.test.site_files import FIRST, SECOND, SITE
from image.test.vm import RASPI3, Vm, wait_for


def board_card(image: Path) -> Card:
    card = Card(image, image.parent / "image-test/board")
    (card.folder / "board.dtb").write_bytes(card.fetch("bcm2837-rpi-3-b.dtb"))
    return card


def test_the_loader_tries_a_slot_once_and_leaves_one_that_it_cannot_load(image: Path) -> None:
    card = board_card(image)
    card.copy_slot("a", "b", "loglevel=6")
    card.write("try.txt", "slot=b\n")
    (card.folder / "u-boot.bin").write_bytes(card.fetch("u-boot.bin"))

    def start(*shown: str, once: bool) -> None:
        tree = ("-dtb", str(card.folder / "board.dtb"))
        with Vm(card, RASPI3, options=tree, loader=card.folder / "u-boot.bin") as vm:
            for text in shown:
                vm.wait_for_console(text)
            assert ("dertwin.trial" in vm.console()) == once
            vm.qmp("quit")  # what the loader has written is then on the card
            vm.wait_for_end()

    start("dertwin: slot b", "Starting kernel", "initrd: no root file system", once=True)
    assert "try.txt" not in card.names()
    card.remove("a/initrd.img")
    start(
        "dertwin: slot a does not boot",
        "dertwin: slot b",
        "Starting kernel",
        "initrd: no root file system",
        once=False,
    )


def test_a_raspberry_pi_3_serves_its_lines(image: Path, figures: Figures, tmp_path: Path) -> None:
    card = board_card(image)
    card.write("dertwin/site.json", SITE)
    adapters = [
        word
        for number, serial in enumerate((FIRST, SECOND))
        for word in ("-device", f"usb-serial,chardev=c{number},serial={serial},always-plugged=on")
    ]
    with Vm(card, RASPI3, options=("-dtb", str(card.folder / "board.dtb"), *adapters)) as vm:
        vm.wait_for_shell()
        wait_until_ready(vm)
        figures["Raspberry Pi 3 (emulated): ready with two lines after power-on"] = (
            vm.seconds_since_power_on()
        )
        with (
            wire(vm.adapter(0), tmp_path / "first") as first,
            wire(vm.adapter(1), tmp_path / "second") as second,
        ):
            assert wait_for("the first line", lambda: read_rtu(first, 2, 0, 1), 60) == [1]
            assert len(wait_for("the second line", lambda: read_rtu(second, 1, 0, 2), 60)) == 2
