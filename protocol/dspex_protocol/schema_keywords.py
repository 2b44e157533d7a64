"""The keywords of JSON Schema: those that are read, and those that no type here can stand for."""

from __future__ import annotations

__all__ = ["ANNOTATIONS", "KEYWORDS", "KNOWN", "UNSUPPORTED"]

#: Keywords that restrict no value.
ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$comment", "$defs", "definitions"}
)

#: Keywords of the standard that no type here can stand for, and what to do instead.
UNSUPPORTED = {
    "$anchor": "name a schema by its place, as in '#/$defs/name'",
    "$dynamicAnchor": "name a schema by its place, as in '#/$defs/name'",
    "$dynamicRef": "refer with '$ref' to '#/$defs/name'",
    "$id": "a schema here refers to itself alone",
    "$vocabulary": "schemas are of the standard's own vocabulary",
    "not": "say what a value is, not what it is not",
    "if": "use anyOf",
    "then": "use anyOf",
    "else": "use anyOf",
    "dependentSchemas": "use anyOf",
    "dependentRequired": "use anyOf",
    "dependencies": "use anyOf",
    "patternProperties": "use additionalProperties, or propertyNames with an enum",
    "unevaluatedProperties": "use additionalProperties",
    "unevaluatedItems": "use items",
    "additionalItems": "use prefixItems with items: false",
    "contains": "say what every item is, with items",
    "minContains": "say what every item is, with items",
    "maxContains": "say what every item is, with items",
    "contentEncoding": "use the type string 'bytes'",
    "contentSchema": "use an object",
    "nullable": "use a type with null, as in {'type': ['string', 'null']}",
}

#: Keywords by the type of JSON Schema that they say something of.
KEYWORDS = {
    "null": frozenset[str](),
    "boolean": frozenset[str](),
    "integer": frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    ),
    "number": frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    ),
    "string": frozenset({"minLength", "maxLength", "pattern", "format", "contentMediaType"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "format"}),
    "object": frozenset(
        {"properties", "required", "additionalProperties", "propertyNames"}
        | {"minProperties", "maxProperties"}
    ),
}
_WHOLE = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
KNOWN = _WHOLE | ANNOTATIONS | {"$schema", "discriminator"} | frozenset().union(*KEYWORDS.values())
