"""DSPy's own types: their classes, made from what clients send."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import SignatureError
from dspex_protocol.types import Code, Scalar, Type, walk
from dspy.adapters import types as dspy
from dspy.adapters.types.file import File
from dspy.adapters.types.tool import ToolCalls

from dspex_bridge.programs import media, turns
from dspex_bridge.programs.offered_types import DSPyType, offer_dspy_types
from dspex_bridge.programs.wire_values import add_wire_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_protocol.signatures import SignatureSpec

    from dspex_bridge.programs.offered_types import DSPyTypes

__all__ = ["check_history", "dspy_types"]

# A class each, for the life of the process: no program has more languages.
_MAX_LANGUAGES = 256


def dspy_types(read_file: Callable[[str], bytes] = media.no_files) -> DSPyTypes:
    """DSPy's types; `read_file` gives the bytes at a path that a client named."""
    return partial(_dspy_type, read_file)


def check_history(spec: SignatureSpec) -> None:
    """Raises SignatureError for a history that DSPy would write into the prompt as it is, rather
    than make turns of it: it looks for one input that is of that type and nothing else."""
    history = Scalar("history")
    for item in spec.inputs:
        if item.type != history and history in walk(item.type):
            raise SignatureError(
                f"{item.name}: a history stands alone, not in {item.type}; "
                "give it the default [] where it may be left out"
            )
    names = [item.name for item in spec.inputs if item.type == history]
    if len(names) > 1:
        raise SignatureError(f"a signature has one history, not {' and '.join(names)}")


def _dspy_type(read_file: Callable[[str], bytes], type_: Type) -> DSPyType:
    if isinstance(type_, Code):
        class_ = _code_class(type_.language)
        return DSPyType(class_, lambda value: class_.model_construct(code=turns.code(value)))
    match str(type_):
        case "image":
            # What was checked is not looked at again: Pillow would be asked for bytes.
            return DSPyType(dspy.Image, lambda value: dspy.Image(media.image(value, read_file)))
        case "audio":
            return DSPyType(dspy.Audio, lambda value: _audio(value, read_file))
        case "file":
            return DSPyType(File, lambda value: File(**media.file(value, read_file)))
        case "history":
            return DSPyType(dspy.History, lambda value: dspy.History(messages=turns.history(value)))
        case "code":
            return DSPyType(
                dspy.Code, lambda value: dspy.Code.model_construct(code=turns.code(value))
            )
        case "tool_calls":
            return DSPyType(
                ToolCalls, lambda value: ToolCalls.from_dict_list(turns.tool_calls(value))
            )
    raise AssertionError(f"no type of DSPy's: {type_}")


def _audio(value: Any, read_file: Callable[[str], bytes]) -> dspy.Audio:
    data, name = media.audio(value, read_file)
    return dspy.Audio(data=data, audio_format=name)


@lru_cache(maxsize=_MAX_LANGUAGES)
def _code_class(language: str) -> type[dspy.Code]:
    class_: type[dspy.Code] = dspy.Code[language]
    return class_


def _file_map(value: Any) -> dict[str, str]:
    names = ("file_data", "file_id", "filename")
    return {name: getattr(value, name) for name in names if getattr(value, name) is not None}


def _tool_call_map(call: Any) -> dict[str, Any]:
    made = {"name": call.name, "args": call.args}
    return made if call.id is None else {**made, "id": call.id}


add_wire_form(dspy.Image, lambda value: value.url)
add_wire_form(dspy.Audio, lambda value: f"data:audio/{value.audio_format};base64,{value.data}")
add_wire_form(File, _file_map)
add_wire_form(dspy.History, lambda value: value.messages)
add_wire_form(dspy.Code, lambda value: value.code)
add_wire_form(ToolCalls, lambda value: [_tool_call_map(call) for call in value.tool_calls])

# What an LM or a module made: no path is opened for it.
offer_dspy_types(dspy_types())
