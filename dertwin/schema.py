"""The pydantic model that every part of a site config is made of."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class FrozenModel(BaseModel):
    """A frozen config model: unknown keys are errors, types are strict, NaN and infinity are refused.

    Keys named `comment` or starting with `_` are notes of the author and ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Keys that are no fields because a validator makes something else of them.
    also_accepted: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_notes(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {
                k: v
                for k, v in data.items()
                if not (isinstance(k, str) and (k == "comment" or k.startswith("_")))
            }
        return data
