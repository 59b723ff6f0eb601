"""From ``tailrace.toml``, the environment and the command line to Settings, or every mistake.

Each layer is laid over the one before, and beside each value is kept where it stands, so that
whatever the models refuse is told with its line or its variable. No value is ever quoted in a
message: it may be a secret.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.errors import ConfigurationError
from service.settings import Settings, expected_at, field_at, is_table, keys_at
from service.toml_lines import KeyPath, key_lines
from service.values import NAME_RULE, default_data_dir

PREFIX = "TAILRACE_"
NO_OVERRIDES: Final[Mapping[str, Any]] = MappingProxyType({})
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_ABSENT = ("missing", "table_or_sql")
_PLAINER = {
    "dict_type": "should be a table",
    "missing": "is needed",
    "too_short": "is empty",
    "tuple_type": "should be a list",
}
# Kubernetes tells every pod the address of a service called "tailrace" in such variables.
_SERVICE_LINK = re.compile(
    r"(?s)(\w+_)?(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT=tcp://|PORT_\d+_(TCP|UDP|SCTP)\w*=).*"
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: where it stands, which setting, and what would be right."""

    where: str
    path: str
    message: str
    expected: str = ""

    def __str__(self) -> str:
        told = ": ".join(part for part in (self.where, self.path, self.message) if part)
        return f"{told} (expected: {self.expected})" if self.expected else told

    def order(self) -> tuple[str, int]:
        """The key to sort by: the file's mistakes by line."""
        place, _, line = self.where.rpartition(":")
        return (place, int(line)) if line.isdigit() else (self.where, 0)


class ConfigurationMistakes(ConfigurationError):
    """All mistakes at once: ``detail`` is a line for each."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n  ".join((f"{count} in the configuration:", *map(str, self.mistakes))))


def load(
    config: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any] = NO_OVERRIDES
) -> Settings:
    """The settings from file, environment and command line, the later over the earlier.

    The file is ``config``, or TAILRACE_CONFIG, or ``tailrace.toml`` here if there is one.
    ``overrides`` maps dotted paths to values; None is an option that was not given.
    Raises ConfigurationMistakes.
    """
    draft = _Draft()
    path = _read_file(draft, config, environ)
    _read_environment(draft, environ)
    _read_overrides(draft, overrides)
    draft.data = _resolved(draft, (), draft.data, environ)
    if (settings := _checked(draft, path, environ)) is None or draft.mistakes:
        raise ConfigurationMistakes(sorted(draft.mistakes, key=Mistake.order))
    return settings


@dataclass
class _Draft:
    """What has been read so far, where each part stands, and what is wrong with it.

    ``unresolved`` are the paths whose value could not be had, and ``misspelt`` those that are
    there under another name, which is told already.
    """

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    unresolved: set[KeyPath] = field(default_factory=set)
    misspelt: set[KeyPath] = field(default_factory=set)
    unreadable: bool = False

    def lay(self, path: KeyPath, value: object, where: str) -> None:
        kept = {known: at for known, at in self.places.items() if known[: len(path)] != path}
        above = {path[:length]: where for length in range(1, len(path))}
        self.places = above | kept | {path: where}
        table: Any = self.data
        for name in path[:-1]:
            table = table.setdefault(name, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = value

    def where(self, path: KeyPath) -> str:
        above = (path[:length] for length in range(len(path), -1, -1))
        return next((self.places[known] for known in above if known in self.places), "defaults")

    def wrong(self, path: KeyPath, message: str, expected: str = "", where: str = "") -> None:
        self.mistakes.append(Mistake(where or self.where(path), _dotted(path), message, expected))


def _dotted(path: KeyPath) -> str:
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in path)


def _near(word: object, known: Iterable[str], likeness: float = 0.6) -> str:
    spelled = {name.lower(): name for name in known}
    found = get_close_matches(str(word).lower(), spelled, 1, likeness)
    return f"; did you mean '{spelled[found[0]]}'?" if found else ""


def _read_file(draft: _Draft, config: Path | None, environ: Mapping[str, str]) -> Path | None:
    path, named = config, "command line"
    if path is None:
        path = Path(environ.get("TAILRACE_CONFIG") or "tailrace.toml")
        named = "environment TAILRACE_CONFIG"
        if not environ.get("TAILRACE_CONFIG") and not path.exists():
            return None
    try:
        _parse(draft, str(path), path.read_bytes())
    except OSError as failure:
        draft.unreadable = True
        draft.wrong((), f"cannot read {path}: {failure.strerror}", where=named)
    return path


def _parse(draft: _Draft, file: str, content: bytes) -> None:
    try:
        text = content.decode("utf-8-sig")
        draft.data = tomllib.loads(text)
    except (ValueError, RecursionError) as failure:
        draft.unreadable = True
        line, reason = _syntax(content, failure)
        draft.wrong((), reason, "a TOML file", f"{file}{line}")
        return
    draft.places = {path: f"{file}:{line}" for path, line in key_lines(text).items()} | {(): file}
    if draft.data.pop("config_path", None) is not None:
        _unknown(draft, ("config_path",), None)


def _syntax(content: bytes, failure: Exception) -> tuple[str, str]:
    if isinstance(failure, UnicodeDecodeError):
        return f":{len(content[: failure.start + 1].splitlines())}", "is not UTF-8"
    match = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", str(failure))
    line = f":{match[1] or len(content.splitlines())}" if match else ""
    return line, f"is not TOML: {failure}"


def _read_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    given: dict[KeyPath, str] = {}
    for variable, text in sorted(environ.items()):
        name = variable.removeprefix(PREFIX)
        if name in (variable, "CONFIG") or _SERVICE_LINK.fullmatch(f"{name}={text}"):
            continue
        path = _setting(name.lower(), "__", draft.data)
        if is_file := path is None and name.lower().endswith("_file"):
            path = _setting(name.lower().removesuffix("_file"), "__", draft.data)
        where = f"environment {variable}"
        if path is None:
            draft.wrong((), f"is not a setting{_meant(name, draft.data)}", where=where)
        elif text and path in given:
            draft.wrong(path, f"is set by {given[path]} already", "one of the two", where)
        elif not text and path[-1] == "url":
            # Unset it would mean the embedded PostgreSQL, which nobody asked for.
            draft.wrong(path, "is empty", expected_at(path), where)
        elif text:
            given[path] = variable
            draft.lay(path, text, where)
            if is_file:
                _read_secret(draft, path, Path(text))


def _setting(name: str, dot: str, data: Mapping[str, Any]) -> KeyPath | None:
    match name.split(dot):
        case [key] if key in keys_at(()) and not is_table((key,)):
            return (key,)
        case [section, key] if key in keys_at((section,)):
            return (section, key)
        case [section, *words, key] if words and key in keys_at((section, "any")):
            existing = _existing(data.get(section), dot.join(words))
            return (section, existing, key) if existing else None
    return None


def _existing(table: object, name: str) -> str | None:
    """``name`` as the file spells it, itself if it is new, None if it might be several."""
    shape = re.compile(re.sub("[^a-z0-9]", "[^a-z0-9]", name.lower()))
    known = table if isinstance(table, dict) else ()
    found = [spelled for spelled in known if shape.fullmatch(spelled.lower())] or [name]
    return found[0] if len(found) == 1 else None


def _meant(name: str, data: Mapping[str, Any]) -> str:
    above = name.rpartition("__")[0]
    if _setting(above.lower(), "__", data):
        return f"; did you mean '{PREFIX}{above}'?"
    return _near(f"{PREFIX}{name}", _variables(name), 0.8)


def _variables(name: str) -> Iterator[str]:
    """The variables that ``name`` may have been meant for."""
    middle = "__".join(name.split("__")[1:-1]) or "NAME"
    for section in keys_at(()):
        yield from (f"{PREFIX}{section}__{key}".upper() for key in keys_at((section,)))
        named = keys_at((section, "any"))
        yield from (f"{PREFIX}{section}__{middle}__{key}".upper() for key in named)
    yield from (f"{PREFIX}DATA_DIR", f"{PREFIX}CONFIG")


def _read_secret(draft: _Draft, path: KeyPath, file: Path) -> None:
    draft.lay(path, _file_secret(draft, path, file), draft.where(path))


def _file_secret(draft: _Draft, path: KeyPath, file: Path) -> str:
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, ValueError):
        text = ""
    if not text:
        draft.unresolved.add(path)
        draft.wrong(path, f"cannot read {file}, or it is empty", "a file that holds the value")
    return text


def _read_overrides(draft: _Draft, overrides: Mapping[str, Any]) -> None:
    for option, value in overrides.items():
        path = _setting(option, ".", draft.data)
        if path is None:
            draft.wrong(tuple(option.split(".")), "is not a setting", where="command line")
        elif value is not None:
            draft.lay(path, value, "command line")


def _resolved(draft: _Draft, path: KeyPath, value: Any, environ: Mapping[str, str]) -> Any:
    """``value`` with each "env:NAME" in it replaced by the variable NAME.

    In the headers for an upstream, "file:/path" likewise by what the file holds.
    """
    if isinstance(value, dict):
        return {key: _resolved(draft, (*path, key), inner, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(draft, (*path, str(n)), at, environ) for n, at in enumerate(value)]
    is_header = path[:1] == ("upstreams",) and path[2:3] == ("headers",)
    if is_header and isinstance(value, str) and value.startswith("file:"):
        return _file_secret(draft, path, Path(value.removeprefix("file:")))
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if reference is None or environ.get(reference[1]):
        return environ[reference[1]] if reference else value
    draft.unresolved.add(path)
    draft.wrong(path, f"the environment variable {reference[1]} is not set", "a value in it")
    return value


def _checked(draft: _Draft, path: Path | None, environ: Mapping[str, str]) -> Settings | None:
    if draft.unreadable:
        return None
    data = {"data_dir": default_data_dir(environ)} | draft.data | {"config_path": path}
    sources = draft.data.get("sources", {})
    known = tuple(sources or ("main",)) if isinstance(sources, dict) else None
    try:
        return Settings.model_validate(data, context=known)
    except ValidationError as failure:
        errors = failure.errors(include_url=False)
        # A misspelt key first: it may explain that another one is missing.
        for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
            _refused(draft, error)
    return None


def _refused(draft: _Draft, error: ErrorDetails) -> None:
    kind = error["type"]
    is_name = kind == "value_error" and error["loc"][-1] == "[key]"
    path = tuple(map(str, error["loc"][:-1] if is_name else error["loc"]))
    if any(path[:length] in draft.unresolved for length in range(1, len(path) + 1)):
        return
    if kind in _ABSENT and path in draft.misspelt:
        return
    if kind == "extra_forbidden":
        _unknown(draft, path, error["input"])
        return
    plain = "should be a table" if is_table(path) and not is_name else error["msg"]
    message = _PLAINER.get(kind, plain)
    choices = error.get("ctx", {}).get("known", ())
    if kind == "literal_error":
        choices = get_args(field_at(path).annotation)
    expected = f"one of {', '.join(choices)}" if choices else expected_at(path)
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message += _near(error["input"], choices)
    draft.wrong(path, message, NAME_RULE if is_name and not path[2:] else expected)


def _unknown(draft: _Draft, path: KeyPath, value: object) -> None:
    parent, known = path[:-1], keys_at(path[:-1])
    hint = _near(path[-1], known)
    meant = {name for name in known if hint.endswith(f"'{name}'?")}
    if isinstance(value, dict) and path[2:]:
        hint = f'; a name with a dot is quoted: [{path[0]}."{".".join(path[1:])}"]'
        meant = {*known}
    draft.misspelt |= {(*parent, "sql" if name == "table" else name) for name in meant}
    draft.wrong(path, f"is not a key here{hint}", f"one of {', '.join(known)}")
