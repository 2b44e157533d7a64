"""Objects as Pydantic models: what DSPy's adapters know how to describe to an LM, and to fill."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any, ClassVar

from dspex_protocol.schema_writer import schema_of
from pydantic import BaseModel, ConfigDict, Field, create_model, model_serializer

from .wire_values import add_wire_form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_protocol.types import Object, Property, Type

__all__ = ["object_model", "type_of_model"]


class _Map(BaseModel):
    """Takes what an LM said as far as it can be read; the output's converter judges it."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    #: What this is the model of.
    type_: ClassVar[Object]
    #: The names of the properties by those of the attributes.
    names: ClassVar[Mapping[str, str]] = {}
    schema_of_map: ClassVar[Mapping[str, Any]] = {}

    @model_serializer(mode="plain")
    def as_map(self) -> dict[str, Any]:
        """The properties that were given, by their own names."""
        own = {
            name: getattr(self, attribute)
            for attribute, name in self.names.items()
            if attribute in self.model_fields_set
        }
        return {**own, **(self.model_extra or {})}

    @classmethod
    def __get_pydantic_json_schema__(cls, _core_schema: Any, _handler: Any) -> dict[str, Any]:
        return dict(cls.schema_of_map)


add_wire_form(_Map, _Map.as_map)


def object_model(type_: Object, annotations: Mapping[str, Any]) -> type[BaseModel]:
    """The model of an object, given the annotations of its properties by name."""
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for index, item in enumerate(type_.properties):
        attribute = item.name if _may_be_attribute(item.name) else f"property_{index}_"
        names[attribute] = item.name
        fields[attribute] = (annotations[item.name], _field(item, attribute))
    # A class's name stands in the prompt.
    title = "".join(c for c in type_.title or "" if c.isascii() and c.isalnum())
    model = create_model(title or "Object", __base__=_Map, __doc__=type_.description, **fields)
    model.type_ = type_
    model.names = names
    model.schema_of_map = schema_of(type_)
    return model


def type_of_model(class_: type) -> Type | None:
    """The type that a class is the model of; None for any other class."""
    return class_.type_ if issubclass(class_, _Map) else None


def _may_be_attribute(name: str) -> bool:
    return (
        name.isidentifier()
        and name.isascii()
        and not name.startswith("_")
        and not name.endswith("_")
        and not keyword.iskeyword(name)
        and not hasattr(_Map, name)
    )


def _field(item: Property, attribute: str) -> Any:
    alias = None if attribute == item.name else item.name
    if item.required:
        return Field(alias=alias, description=item.description)
    return Field(None, alias=alias, description=item.description)
