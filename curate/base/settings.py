"""Typed settings: one class a command, from YAML and overrides, with unknown keys refused.

Where and in which precision a command computes is said and resolved here, for all of them.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from curate.base.errors import ConfigError

if TYPE_CHECKING:
    import torch

S = TypeVar("S", bound="Settings")

OPERATIONAL: dict[str, Any] = {"identity": False}
"""`json_schema_extra` of a setting that says how a command works and not what it makes."""

EACH: dict[str, Any] = {"each": True}
"""`json_schema_extra` of named values that are texts: an option gives one, `--option NAME=TEXT`, as
often as wanted, and commas are part of the text."""

_UNKNOWN = "unknown_setting"
NONE = "none"
"""Clears a setting that may be empty, in YAML and on the command line."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Of weights and activations, in every command; see `precision_of` for auto."""
Resolved = Literal["fp32", "bf16", "fp16"]
"""A precision once auto is resolved."""


def _known_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("use auto, cpu, cuda or cuda:N")
    return device


Device = Annotated[str, AfterValidator(_known_device)]
"""auto, cpu, cuda or cuda:N, in every command; see `device_of`."""


def _lists_joined(sources: Any) -> Any:
    if not isinstance(sources, dict):
        return sources
    return {k: "+".join(map(str, v)) if isinstance(v, list | tuple) else v
            for k, v in sources.items()}  # fmt: skip


CaptionSources = Annotated[dict[str, str], BeforeValidator(_lists_joined)]
"""Kind -> who wrote it; `a+b`, or a list, takes those of a, and of b where a picture has none."""


class Settings(BaseModel):
    """Base of every command's settings: frozen, no unknown keys, every default documented.

    A field whose `json_schema_extra` holds `{"identity": False}` (such as a worker count) says
    how a command works and not what it makes; it may change between two runs on one directory.
    """

    RENAMED: ClassVar[dict[str, str]] = {}
    """Earlier names of settings -> what they are called now."""

    GROUPS: ClassVar[dict[str, str]] = {}
    """What settings are for, as `--help` says it -> the first of them; the group goes on to the
    next one's first. A class may group those of the classes that it joins."""

    EXPERT: ClassVar[str] = ""
    """Names, between spaces, of settings that few need; `--help-all` shows them."""

    # Deferred: help needs the fields alone, and building a validator costs most of its time.
    # No setting means anything as NaN or infinity, and NaN passes most comparisons.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        defer_build=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _texts_as_on_the_command_line(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        fields = cls.model_fields
        for name in given:
            if name in cls.RENAMED:
                problem = f"{cls.__name__}: {name} is called {cls.RENAMED[name]} now."
                raise PydanticCustomError(_UNKNOWN, "{problem}", {"problem": problem})
            if name not in fields:
                hint = nearest(str(name), list(fields))
                problem = f"{cls.__name__} has no setting {name!r}; {hint}"
                raise PydanticCustomError(_UNKNOWN, "{problem}", {"problem": problem})
        return {
            name: _read_text(value, fields[name].annotation)
            if isinstance(value, str) and name in fields
            else value
            for name, value in given.items()
        }

    def resolved(self) -> dict[str, Any]:
        """Every setting with its final value, ready for JSON."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is made; two runs may share a directory iff these agree."""
        return {
            name: value
            for name, value in self.resolved().items()
            if not is_operational(type(self), name)
        }

    def part(self, cls: type[S]) -> S:
        """The settings of one component, out of a command's settings that contain its fields."""
        return cls(**{name: getattr(self, name) for name in cls.model_fields})


def is_operational(cls: type[BaseModel], name: str) -> bool:
    """Whether field `name` says only how to work (workers, threads), not what to make."""
    extra = cls.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and extra.get("identity") is False


def load_settings(
    cls: type[S], yaml_path: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> S:
    """Build settings from a YAML file (optional) with `overrides` on top.

    Raises:
        ConfigError: unreadable YAML, an unknown key (the nearest valid name is named) or a value
            out of its range; one sentence, for the first problem found.
    """
    values: dict[str, Any] = {}
    if yaml_path is not None:
        values.update(_read_yaml(Path(yaml_path)))
    values.update(overrides or {})
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_first_problem(cls, error)) from error


def refuse_unknown(given: Mapping[str, Any], valid: list[str], where: str) -> None:
    """Raise ConfigError for the first key of `given` that is not in `valid`."""
    for key in given:
        if key not in valid:
            raise ConfigError(f"{where} has no setting {key!r}; {nearest(str(key), valid)}")


def device_of(device: str) -> str:
    """The device's name for torch; "auto" is the GPU if there is one, else the CPU.

    Raises:
        ConfigError: a word that is no device, or a GPU that is not there.
    """
    try:
        _known_device(device)
    except ValueError as error:
        raise ConfigError(f"There is no device {device!r}; {error}.") from error
    if device == "cpu":
        return device
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise ConfigError(f"device = {device!r}, but torch finds no GPU; use cpu or auto.")
    if int(device.partition(":")[2] or 0) >= count:
        raise ConfigError(
            f"device = {device!r}, but torch finds {count} GPU{'s'[: count > 1]}, counted from 0."
        )
    return device


def precision_of(precision: Precision, device: str, matrix_tiles: bool = False) -> Resolved:
    """What to compute in on `device`; "auto" becomes bf16 or fp32.

    Auto is bf16 on a GPU that computes it and fp32 elsewhere. With `matrix_tiles` it is bf16 on a
    CPU with AMX or AVX512-BF16 too, which multiplies it faster than fp32, while any other is five
    times slower: training says so, since its result is its own. Captions and scores stay comparable
    between CPUs.

    Raises:
        ConfigError: there is no such device (see `device_of`), or it cannot compute bf16.
    """
    if precision in ("fp32", "fp16") and device in ("auto", "cpu"):
        return precision  # torch, seconds to import, has nothing to add
    device = device_of(device)
    if precision in ("fp32", "fp16"):
        return precision
    import torch

    if device.startswith("cuda"):
        able = torch.cuda.get_device_capability(device)[0] >= 8
        if not able and precision == "bf16":
            raise ConfigError(
                f"precision = 'bf16', but the GPU {torch.cuda.get_device_name(device)} does not "
                f"compute it; use fp32, or fp16 where the command takes it."
            )
        return "bf16" if able else "fp32"
    own = torch.cpu.get_capabilities() if matrix_tiles else {}
    multiplies = own.get("amx_bf16", False) or own.get("avx512_bf16", False)
    return "bf16" if precision == "bf16" or multiplies else "fp32"


def dtype_of(precision: Resolved) -> torch.dtype:
    """torch's name of a precision that `precision_of` resolved."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def named_values(text: str) -> dict[str, Any]:
    """Parse `name=value,...`; values are read as YAML does (numbers, true, words).

    Raises:
        ConfigError: a part is not of the form name=value.
    """
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if not (separator and name.strip() and value.strip()):
            raise ConfigError(
                f"{part.strip()!r} is not of the form name=value, as in descriptive=0.95,alt=0.05."
            )
        values[name.strip()] = yaml.safe_load(value)
    return values


def comma_list(text: str) -> list[str]:
    """`a, b,c` -> ["a", "b", "c"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def may_be_none(annotation: Any) -> bool:
    """Whether a field's type is `X | None`."""
    return type(None) in get_args(annotation)


def without_none(annotation: Any) -> Any:
    """X from `X | None`; the first type of any other union."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        return without_none(get_args(annotation)[0])
    return annotation


def _read_text(text: str, annotation: Any) -> Any:
    """A text in YAML means what it means as an option: none, `a,b` and `name=value,...`."""
    if text == NONE and may_be_none(annotation):
        return None
    base = without_none(annotation)
    nested = any(get_origin(part) not in (None, Literal) for part in get_args(base))
    if get_origin(base) in (list, tuple) and not nested:
        return comma_list(text)
    if get_origin(base) is dict and not nested and "=" in text:
        return named_values(text)
    return text


def nearest(name: str, valid: list[str]) -> str:
    """The hint at the end of an unknown-name message."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid names are {', '.join(sorted(valid))}."


class _OnceLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two values of one name and says nothing; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose names stand once."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (name := (key.tag, key.value)) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands there twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except FileNotFoundError as error:
        raise ConfigError(f"The settings file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The settings file {path} is not valid YAML ({error}).") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"The settings file {path} must hold `name: value` lines.")
    return loaded


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    location = problem["loc"]
    name = ".".join(str(part) for part in location) or cls.__name__
    if problem["type"] == _UNKNOWN:
        return problem["msg"]
    if problem["type"] == "missing":
        return f"{cls.__name__} needs a value for {name!r}."
    message = problem["msg"].removeprefix("Value error, ")
    if not location:  # about several settings together; the message names them
        return f"{cls.__name__}: {message}."
    return f"{cls.__name__}: {name} = {problem['input']!r} is not allowed: {message}."
