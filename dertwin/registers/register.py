"""One entry of a register map."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from dertwin.config_errors import show
from dertwin.registers.codec import BIT, COUNTS, Codec, Order, RegisterType, codec
from dertwin.schema import FrozenModel

# The four tables, each named by the function code that reads it.
TABLES = COIL, DISCRETE_INPUT, HOLDING, INPUT = 1, 2, 3, 4
# The table that each function code writes.
_WRITE_FUNCTIONS = {0x05: COIL, 0x0F: COIL, 0x06: HOLDING, 0x10: HOLDING}
_FUNCTIONS = (COIL, DISCRETE_INPUT, HOLDING, INPUT, *_WRITE_FUNCTIONS)
_BIT_FUNCTIONS = (COIL, DISCRETE_INPUT, 0x05, 0x0F)


def _label(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


Label: TypeAlias = Annotated[str, BeforeValidator(_label)]


class Register(FrozenModel):
    """One entry of a register map: raw x `scale` is the value, in the unit of `internal_name`.

    A `read` entry is `ro`; a `write` entry reads back (`rw`) unless its access is `wo`. `endian` is the
    order of words, `byte_order` that of the bytes in a word, `sentinel` the bits that mean "not available";
    `bits` names the measurements of a bitfield by bit number, instead of `internal_name`.
    """

    name: str
    func: int
    direction: Literal["read", "write"]
    access: Literal["ro", "rw", "wo"] | None = None
    type: RegisterType
    address: Annotated[int, Field(ge=0, le=65535)]
    count: int
    scale: float = 1.0
    endian: Order = "big"
    byte_order: Order = "big"
    sentinel: int | None = None
    wrap: bool = False
    bits: dict[int, str] | None = None
    internal_name: Annotated[str | None, Field(validate_default=True)] = None
    unit: Label | None = None
    description: Label | None = None
    options: dict[int, Label] | None = None

    @property
    def table(self) -> int:
        """Return the table the entry is written for."""
        return self.func if self.direction == "read" else _WRITE_FUNCTIONS[self.func]

    @property
    def stop(self) -> int:
        """Return the first address after the entry."""
        return self.address + self.count

    @property
    def codec(self) -> Codec:
        """Return how the raw value lies in the registers."""
        if self.table in (COIL, DISCRETE_INPUT):
            return BIT
        return codec(self.type, self.count, self.endian, self.byte_order, self.sentinel, self.wrap)

    @property
    def names(self) -> list[tuple[str, str]]:
        """Return the measurements or the command it names, each with the key that does so."""
        if self.bits is not None:
            return [(f"bits[{bit}]", name) for bit, name in self.bits.items()]
        return [("internal_name", self.internal_name or "")]

    @field_validator("func")
    @classmethod
    def _check_func(cls, func: int) -> int:
        if func not in _FUNCTIONS:
            known = ", ".join(f"{code:#04x}" for code in _FUNCTIONS)
            raise ValueError(f"{func:#04x} is not allowed; use one of {known}")
        return func

    @field_validator("direction")
    @classmethod
    def _check_direction(cls, direction: str, info: ValidationInfo) -> str:
        func = info.data.get("func")
        fitting = "write" if func in _WRITE_FUNCTIONS else "read"
        if func is not None and direction != fitting:
            raise _refusal(direction, f"{fitting} with func {func:#04x}")
        return direction

    @field_validator("access")
    @classmethod
    def _check_access(cls, access: str | None, info: ValidationInfo) -> str | None:
        fitting = ("ro",) if info.data.get("direction") == "read" else ("rw", "wo")
        if access is not None and "direction" in info.data and access not in fitting:
            raise _refusal(access, f"{' or '.join(fitting)} with direction {info.data['direction']}")
        return access

    @field_validator("type")
    @classmethod
    def _check_type(cls, kind: str, info: ValidationInfo) -> str:
        if info.data.get("func") in _BIT_FUNCTIONS and kind != "uint16":
            raise _refusal(kind, "uint16 for a coil or discrete input")
        if info.data.get("direction") == "write" and kind == "string":
            raise _refusal(kind, "a type of number: commands have no other values")
        return kind

    @field_validator("count")
    @classmethod
    def _check_count(cls, count: int, info: ValidationInfo) -> int:
        kind, address = info.data.get("type"), info.data.get("address")
        if kind is not None and count not in COUNTS[kind]:
            fitting = [str(known) for known in COUNTS[kind]]
            allowed = f"{fitting[0]} to {fitting[-1]}" if len(fitting) > 3 else " or ".join(fitting)
            raise _refusal(count, f"{allowed} for {kind}")
        if address is not None and address + count > 65536:
            raise _refusal(count, f"at most {65536 - address} at address {address}")
        return count

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: float) -> float:
        if scale == 0:
            raise _refusal(scale, "a number other than 0")
        return scale

    @field_validator("sentinel")
    @classmethod
    def _check_sentinel(cls, sentinel: int | None, info: ValidationInfo) -> int | None:
        kind, bits = info.data.get("type"), 16 * info.data.get("count", 4)
        if sentinel is not None and kind == "string":
            raise _refusal(sentinel, "none with a string")
        if sentinel is not None and not -(1 << bits - 1) <= sentinel < 1 << bits:
            raise _refusal(sentinel, f"an integer of {bits} bits")
        return sentinel

    @field_validator("wrap")
    @classmethod
    def _check_wrap(cls, wrap: bool, info: ValidationInfo) -> bool:
        if wrap and info.data.get("type") in ("string", "float32", "float64"):
            raise _refusal(wrap, f"false: a {info.data['type']} does not wrap")
        return wrap

    @field_validator("bits")
    @classmethod
    def _check_bits(cls, bits: dict[int, str] | None, info: ValidationInfo) -> dict[int, str] | None:
        width = 16 * info.data.get("count", 4)
        if bits is not None and (info.data.get("type") != "bitfield" or info.data.get("direction") != "read"):
            raise _refusal(bits, "bits only with type bitfield and direction read")
        if bits is not None and (not bits or any(not 0 <= bit < width for bit in bits)):
            raise _refusal(bits, f"bit numbers from 0 to {width - 1}")
        return bits

    @field_validator("internal_name")
    @classmethod
    def _check_internal_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if "bits" not in info.data:
            return name
        if name is None and info.data["bits"] is None:
            raise PydanticKnownError("missing")
        if name is not None and info.data["bits"] is not None:
            raise _refusal(name, "either internal_name or bits")
        return name


def _refusal(value: object, allowed: str) -> ValueError:
    return ValueError(f"{show(value)} is not allowed; use {allowed}")
