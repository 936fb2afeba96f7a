"""The pydantic model that every part of a site config is made of."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema


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

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add to the JSON Schema what pydantic leaves out: notes, and old spellings of keys."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        schema["patternProperties"] = {"^_|^comment$": {"description": "A note of the author, ignored."}}
        properties = schema.get("properties", {})
        for name, field in cls.model_fields.items():
            first, *others = spellings(name, field)
            properties |= dict.fromkeys(others, properties[first])
        return reference


def spellings(name: str, field: FieldInfo) -> list[str]:
    """Return the keys that a document may use for a field, the usual one first."""
    alias = field.validation_alias
    if alias is None:
        return [name]
    return [choice for choice in getattr(alias, "choices", [alias]) if isinstance(choice, str)]
