"""Register maps: which register shows which measurement or takes which command, read from YAML."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PrivateAttr, ValidationError

from dertwin.config_errors import ConfigError, ConfigErrors, validation_errors
from dertwin.documents import read_document
from dertwin.registers.register import COIL, DISCRETE_INPUT, HOLDING, INPUT, TABLES, Register
from dertwin.schema import FrozenModel


class Sound(NamedTuple):
    """What of a register map has no faults: entries after their index, and texts that they may show."""

    device_type: str = ""
    registers: Sequence[tuple[int, Register]] = ()
    texts: Mapping[str, str] = MappingProxyType({})


class MapErrors(ConfigErrors):
    """A register map cannot be used; `errors` are all its faults, `sound` is what has none."""

    def __init__(self, errors: Sequence[ConfigError], sound: Sound | None = None) -> None:
        super().__init__(errors)
        self.sound = sound or Sound()


class Identification(FrozenModel):
    """What function 43/14 (read device identification) says: the objects 0 to 6, in this order."""

    vendor_name: str | None = None
    product_code: str | None = None
    revision: str | None = None
    vendor_url: str | None = None
    product_name: str | None = None
    model_name: str | None = None
    user_application_name: str | None = None

    def texts(self) -> Mapping[str, str]:
        """Return what is given, by name: string registers can show it too."""
        return self.model_dump(exclude_none=True)


class RegisterMap(FrozenModel):
    """All registers of a kind of device, and what it answers where there are none.

    `gaps: zero` answers reads of unmapped addresses between the lowest and the highest of a table with 0;
    `partial_writes: hold` keeps the half of a value that was written until the other half arrives.
    """

    protocol: str | None = None
    device_type: str | None = None
    description: str | None = None
    gaps: Literal["error", "zero"] = "error"
    partial_writes: Literal["reject", "hold"] = "reject"
    identification: Identification = Identification()
    registers: Annotated[tuple[Register, ...], Field(min_length=1, strict=False)]
    _file: str = PrivateAttr("")

    @property
    def file(self) -> str:
        """Return the file the map was loaded from; empty if from none."""
        return self._file

    def sound(self) -> Sound:
        """Return all of it: a map that could be loaded has no faults in itself."""
        return Sound(self.device_type or "", tuple(enumerate(self.registers)), self.identification.texts())

    def identification_objects(self) -> Mapping[int, bytes]:
        """Return the objects of function 43/14; vendor, product code and revision are always among them."""
        texts = {
            "vendor_name": "DER Twin",
            "product_code": self.device_type or "device",
            "revision": "1.0",
            **({"product_name": self.description} if self.description else {}),
            **self.identification.texts(),
        }
        names = list(Identification.model_fields)
        return {names.index(name): text.encode("ascii", "replace") for name, text in sorted(texts.items())}

    def pools(self) -> list[tuple[int, ...]]:
        """Return which tables are one: a pair of tables is, unless entries of the two collide."""
        covered: dict[int, set[int]] = {table: set() for table in TABLES}
        for register in self.registers:
            covered[register.table].update(range(register.address, register.stop))
        pools: list[tuple[int, ...]] = []
        for one, other in ((COIL, DISCRETE_INPUT), (HOLDING, INPUT)):
            pools += [(one, other)] if covered[one].isdisjoint(covered[other]) else [(one,), (other,)]
        return pools

    def readable(self, table: int) -> list[Register]:
        """Return the entries that a read of the table shows, by address.

        Of a read and a write entry that share a register, it is the read entry.
        """
        (pool,) = (pool for pool in self.pools() if table in pool)
        shown: dict[int, Register] = {}
        for register in sorted(self.registers, key=lambda r: (r.address, r.direction != "read")):
            is_here = register.table == table or (register.direction == "read" and register.table in pool)
            if is_here and register.access != "wo":
                shown.setdefault(register.address, register)
        return list(shown.values())


def load_map(path: str | Path) -> RegisterMap:
    """Read a register map from a YAML file. Raises MapErrors with all faults at once."""
    file = str(path)
    try:
        document, errors = read_document(Path(path))
    except ConfigErrors as error:
        raise MapErrors(error.errors) from error
    if not isinstance(document, dict):
        raise MapErrors([ConfigError(file, "", "has no keys; a register map has at least `registers:`")])
    try:
        register_map = RegisterMap.model_validate(document)
    except ValidationError as error:
        errors += validation_errors(error, RegisterMap, document, file)
    # Also the good entries of a bad map are compared, so that all faults are shown at once.
    entries = document.get("registers")
    good = list(_good(entries if isinstance(entries, list) else ()))
    errors += overlaps(good, file)
    if errors:
        # Which texts a bad map has is not known, so nothing is said about the entries that show them.
        numbers = [(index, register) for index, register in good if register.type != "string"]
        raise MapErrors(errors, Sound(str(document.get("device_type")), numbers))
    register_map._file = file
    return register_map


def _good(entries: Iterable[object]) -> Iterator[tuple[int, Register]]:
    for index, entry in enumerate(entries):
        with suppress(ValidationError):
            yield index, Register.model_validate(entry)


def overlaps(registers: Iterable[tuple[int, Register]], file: str) -> Iterator[ConfigError]:
    """Yield a fault for every entry that overlaps another one of its table.

    A read and a write entry may share one register if it is of the same type for both.
    """
    ordered = sorted(registers, key=lambda item: (item[1].table, item[1].address, item[0]))
    for position, (first_index, first) in enumerate(ordered):
        for index, other in ordered[position + 1 :]:
            if other.table != first.table or other.address >= first.stop:
                break
            shared = other.address == first.address and other.direction != first.direction
            if shared and other.codec == first.codec:
                continue
            message = (
                f"{other.address} is not allowed for {other.name!r}; use one that is free: {first.name!r} "
                f"(registers[{first_index}]) has {_span(first)}"
            )
            if shared:
                message += (
                    ", which can be shared only with the same type, count, endian, byte_order and sentinel"
                )
            yield ConfigError(file, f"registers[{index}].address", message)


def _span(register: Register) -> str:
    last = register.stop - 1
    return f"{register.address} to {last}" if last != register.address else f"{last}"
