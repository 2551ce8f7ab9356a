"""The methods: every file here, and in the folders named by ERASE_METHODS, is one.

A file is a method if it defines one frozen pydantic model with `paper`, `needs`, `presets` and `learn` or `solve`. Its
name is the file's, with `-` for `_`. Names are read from the file system, so listing them does not wait for torch.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin

from erase.errors import BadInput, match
from erase.methods._declared import Declaration, declaration_of, declared
from erase.methods._declared import Knob as Knob

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


T = TypeVar("T")

WAYS = ("learn", "solve", "erase")  # how a method works; erase is that of version 0.1
FOLDERS = "ERASE_METHODS"  # environment variable: folders with further methods, separated as in PATH


class Method(Protocol):
    """What a method file defines; its fields are its knobs.

    A trained method has `learn(request, state) -> Work[dict[str, Tensor]]`, the deltas by parameter name, and
    `cost(request)`; a closed form has `solve(request) -> Work[Edit]`. `finish(request, edit) -> Work[Edit]` may follow.
    """

    paper: ClassVar[str]
    needs: ClassVar[type]
    presets: ClassVar[dict[str, dict[str, Any]]]


def _files() -> dict[str, Path]:
    folders = [Path(__file__).parent, *(Path(part) for part in os.environ.get(FOLDERS, "").split(os.pathsep) if part)]
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{FOLDERS} names {folder}, which is not a folder.")
        for file in sorted(folder.glob("*.py")):
            name = file.stem.replace("_", "-")
            if file.stem.startswith("_") or file == Path(__file__):
                continue
            if name in found and found[name].resolve() != file.resolve():
                raise BadInput(f"Two files define the method {name!r}: {found[name]} and {file}; rename one.")
            found[name] = file
    return found


def method_names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(_files())


def methods() -> dict[str, type[Method]]:
    """All methods by name; raises BadInput for a file that defines none."""
    return {name: _load(name, file) for name, file in sorted(_files().items())}


def method(name: str) -> type[Method]:
    """The method of this name; raises BadInput with the nearest guess."""
    files = _files()
    known = match(name, files, "method")
    return _load(known, files[known])


def declaration(name: str) -> Declaration:
    """What the method of this name declares; BadInput with the nearest guess. A bundled one waits for no torch."""
    files = _files()
    known = match(name, files, "method")
    return declared(files[known]) or declaration_of(_load(known, files[known]), knobs)


def _load(name: str, file: Path) -> type[Method]:
    module = _module(file)
    found = [thing for thing in vars(module).values() if _is_method(thing, module.__name__)]
    if len(found) != 1:
        raise BadInput(
            f"{file} should define one method: a frozen pydantic model with paper, needs, presets and learn() or "
            f"solve(). It defines {len(found)}."
        )
    return found[0]


def _is_method(thing: Any, module: str) -> bool:
    return (
        isinstance(thing, type)
        and thing.__module__ == module
        and bool(getattr(thing, "model_config", {}).get("frozen"))
        and all(hasattr(thing, part) for part in ("paper", "needs", "presets"))
        and any(hasattr(thing, part) for part in WAYS)
    )


def _module(file: Path) -> ModuleType:
    if file.parent == Path(__file__).parent:
        return importlib.import_module(f"erase.methods.{file.stem}")
    # The folder's digest keeps two files of one name apart; the stem stays last, for provenance reads it there.
    name = f"erase_methods_{hashlib.sha256(str(file.parent.resolve()).encode()).hexdigest()[:12]}.{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BadInput(f"The method file {file} cannot be read as Python.")
    from erase.methods._legacy import serve_old_names

    serve_old_names()
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BadInput(f"The method file {file} cannot be imported: {type(error).__name__}: {error}.") from error
    return module


def knobs(kind: type) -> list[Knob]:
    """The knobs of a method, or of another such model, in the order its file lists them."""
    return [_knob(name, field) for name, field in kind.model_fields.items()]  # type: ignore[attr-defined]


def _knob(name: str, field: FieldInfo) -> Knob:
    low = high = None
    for mark in field.metadata:
        low = getattr(mark, "ge", getattr(mark, "gt", low))
        high = getattr(mark, "le", getattr(mark, "lt", high))
    choices = tuple(map(str, get_args(field.annotation))) if get_origin(field.annotation) is Literal else ()
    return Knob(name, _label(field.annotation), field.default, (low, high), field.description or "", choices)


def _label(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_label(part) for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return "choice"
    if get_origin(annotation) in (tuple, list):
        return "list"
    return {bool: "bool", int: "int", float: "float"}.get(annotation, "text")


def build(name: str, preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> Method:
    """A method with its knobs set: defaults, then the preset's differences, then the overrides (texts are parsed).

    Raises BadInput for an unknown method, preset or knob, with the nearest guess, and for a value out of bounds.
    """
    return filled(name, method(name), preset, overrides)


def filled(name: str, kind: type[T], preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """An instance of a class whose fields are knobs and which has presets; `name` is what sentences call it."""
    from pydantic import ValidationError

    listed = {knob.name: knob for knob in knobs(kind)}
    presets: Mapping[str, Any] = kind.presets  # type: ignore[attr-defined]
    chosen = dict(presets[match(preset, presets, f"preset of {name}")]) if preset is not None else {}
    for given, value in (overrides or {}).items():
        known = match(given, listed, f"knob of {name}")
        chosen[known] = _parsed(listed[known], value) if isinstance(value, str) else value
    try:
        return kind(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        raise _out_of_bounds(name, listed[str(first["loc"][0])], first["input"], first["msg"]) from None


def _parsed(knob: Knob, text: str) -> Any:
    if knob.type == "choice":
        return match(text, knob.choices, f"value of {knob.name}")
    if "list" not in knob.type or ("bool" in knob.type and text.lower() in ("true", "false", "yes", "no", "on", "off")):
        return text
    if text.startswith("["):
        try:
            return tuple(json.loads(text))
        except json.JSONDecodeError as error:
            raise BadInput(f"{knob.name}: {text} is not a JSON list ({error}); 'first | second' works too.") from None
    return tuple(part.strip() for part in text.split("|"))


def _out_of_bounds(name: str, knob: Knob, given: Any, complaint: str) -> BadInput:
    low, high = knob.bounds
    between = f"between {low:g} and {high:g}" if low is not None and high is not None else ""
    possible = {"choice": "one of " + ", ".join(knob.choices), "bool": "true or false"}.get(knob.type, between)
    wanted = f" It takes {possible}; the default is {knob.default}." if possible else ""
    return BadInput(
        f"{name}: {knob.name} = {given!r} is not valid ({complaint.removeprefix('Value error, ')}).{wanted}"
    )
