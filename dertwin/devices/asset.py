"""What the config of every asset has in common."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from dertwin.bindings import Binding
from dertwin.devices.device import Device
from dertwin.devices.watchdog import WatchdogConfig
from dertwin.physics.grid import GridLimits
from dertwin.schema import FrozenModel

FLAT_BINDING = ("ip", "port", "unit_id", "register_map")


class GridProtectionConfig(FrozenModel):
    """Interface protection of a generating unit: voltages relative to nominal, Hz, s.

    Nominal is that of the site's grid unless `nominal_voltage_ll_v` says otherwise.
    Defaults: trips as a VDE-AR-N 4105 relay is set (U> 1.10 as 10-minute mean, U>> 1.25, U< 0.80,
    U<< 0.45, f> 51.5 Hz, f< 47.5 Hz), reconnection as for a low-voltage unit. Medium-voltage relays
    come with 600 s, 0.95..1.10 and 49.9..50.1 Hz (Beckhoff TF8360).
    """

    nominal_voltage_ll_v: float | None = Field(default=None, gt=0)
    over_voltage_mean_pu: float = Field(default=1.10, gt=1)
    over_voltage_pu: float = Field(default=1.25, gt=1)
    over_voltage_s: float = Field(default=0.1, ge=0)
    under_voltage_pu: float = Field(default=0.80, ge=0, lt=1)
    under_voltage_s: float = Field(default=1.0, ge=0)
    deep_under_voltage_pu: float = Field(default=0.45, ge=0, lt=1)
    deep_under_voltage_s: float = Field(default=0.3, ge=0)
    over_frequency_hz: float = Field(default=51.5, gt=0)
    over_frequency_s: float = Field(default=0.1, ge=0)
    under_frequency_hz: float = Field(default=47.5, gt=0)
    under_frequency_s: float = Field(default=0.1, ge=0)
    reconnect_s: float = Field(default=60.0, ge=0)
    reconnect_min_pu: float = Field(default=0.85, ge=0, lt=1)
    reconnect_max_pu: float = Field(default=1.10, gt=1)
    reconnect_min_hz: float = Field(default=47.5, gt=0)
    reconnect_max_hz: float = Field(default=50.1, gt=0)

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Self:
        for low, high in (
            ("deep_under_voltage_pu", "under_voltage_pu"),
            ("over_voltage_mean_pu", "over_voltage_pu"),
            ("under_frequency_hz", "over_frequency_hz"),
            ("reconnect_min_hz", "reconnect_max_hz"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low):g} is above {high} {getattr(self, high):g}")
        return self

    def limits(self) -> GridLimits:
        """Return the limits as the protection function takes them."""
        return GridLimits(**{name: getattr(self, name) for name in GridLimits._fields})


class AssetConfig(FrozenModel):
    """The part of an asset's config that does not depend on its type.

    `ip`, `port`, `unit_id` and `register_map` on the asset itself are the short spelling of one
    Modbus TCP binding. Subclasses add `type`, name the register map of bindings without one, and build
    their device.
    """

    also_accepted: ClassVar[tuple[str, ...]] = FLAT_BINDING
    default_map: ClassVar[str]

    asset_id: str | None = Field(default=None, min_length=1)
    protocols: list[Binding] = Field(default_factory=list)
    watchdog: WatchdogConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _fold_flat_binding(cls, data: Any) -> Any:
        flat = [key for key in FLAT_BINDING if isinstance(data, dict) and key in data]
        if not flat:
            return data
        if "protocols" in data:
            raise ValueError(f"{', '.join(flat)}: write them in `protocols` or on the asset, not both")
        binding = {"kind": "modbus_tcp", **{key: data[key] for key in flat}}
        return {**{key: value for key, value in data.items() if key not in flat}, "protocols": [binding]}

    @model_validator(mode="after")
    def _watchdog_fits_the_device(self) -> Self:
        # Only the device knows the names and ranges of its commands: building one checks the fallback.
        if self.watchdog is not None:
            self.build()
        return self

    def ratings(self) -> dict[str, Any]:
        """Return what a state belongs to, as JSON has it: no names, bindings or protection settings."""
        return self.model_dump(mode="json", exclude={*AssetConfig.model_fields, "grid_protection"})

    def build(self) -> Device:
        """Build the device that this config describes."""
        raise NotImplementedError


class GeneratorConfig(AssetConfig):
    """The config of an asset that feeds the grid, and leaves it when the grid is out of its limits."""

    grid_protection: GridProtectionConfig = Field(default_factory=GridProtectionConfig)
