"""A model and its training from a YAML file: three sections, whose keys are settings.

    model:
      norm: rmsnorm
      n_layer: 6
    data:
      corpus: tinyshakespeare
    training:
      lr: 1e-3

What a file leaves out is as the script has it. On the command line `--model.n-layer 8` changes what the file
says.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable
from pathlib import Path

import yaml

from common.errors import UserError, nearest
from common.paths import ROOT
from common.settings import RECIPE, Settings
from common.text import decode_text

DATA = ("corpus", "tokenizer")
TRAINING = (
    "steps", "seconds", "batch_size", "lr", *RECIPE, "dtype", "init_from",
    "schedule", "optimizer", "accumulate", "compile", "table_lr", "pair_decay",
)  # fmt: skip
SECTIONS = ("model", "data", "training")
CONFIGS = (ROOT / "08_micro_arch" / "configs", ROOT / "09_pretraining" / "configs")


def section_of(name: str) -> str:
    """The section that a setting stands in."""
    return "data" if name in DATA else "training" if name in TRAINING else "model"


def without_sections(arguments: list[str], defaults: Settings) -> list[str]:
    """`--model.n-layer 6` as `--n-layer 6`.

    Raises UserError for a section that is not known, or not that of the setting.
    """
    known, plain = {f.name for f in dataclasses.fields(defaults)}, []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        section, dot, rest = flag.removeprefix("--").partition(".")
        if flag.startswith("--") and dot:
            name = rest.removeprefix("no-").replace("-", "_")
            if section not in SECTIONS:
                raise UserError(
                    f"section {section!r} of {flag} is not known{nearest(section, SECTIONS)}; there are "
                    f"{', '.join(SECTIONS)}"
                )
            if name in known and section_of(name) != section:
                raise UserError(
                    f"{flag}: {name} stands in section {section_of(name)}; write --{section_of(name)}.{rest}"
                )
            argument = f"--{rest}{equals}{value}"
        plain.append(argument)
    return plain


def read(path: str, defaults: Settings) -> dict:
    """{setting: value} of a file. Raises UserError, one line, for a file that is not there, is no YAML, or
    cannot be meant.

    A path that does not begin here is looked for in the project; a bare name (`llama`) is a file of its own.
    """
    document = _load(path)
    if not isinstance(document, dict):
        raise UserError(
            f"{path} is no mapping of sections; it begins with a line `model:`, `data:` or `training:`"
        )
    kinds, values_of = typing.get_type_hints(type(defaults)), {}
    for section, values in document.items():
        if section not in SECTIONS:
            hint = _meant(section, kinds, SECTIONS)
            raise UserError(
                f"{path}: section {section!r} is not known{hint}; there are {', '.join(SECTIONS)}"
            )
        if values is None:
            continue
        if not isinstance(values, dict):
            raise UserError(f"{path}: section {section} is no mapping; its lines read `  name: value`")
        for name, value in values.items():
            belonging = [known for known in kinds if section_of(known) == section]
            if name not in belonging:
                hint = _meant(name, kinds, belonging)
                raise UserError(
                    f"{path}: {section} has no setting {name!r}{hint}; it has {', '.join(belonging)}"
                )
            values_of[name] = checked(f"{path}: {section}.{name}", kinds[name], value)
    return values_of


def _meant(name, kinds: dict, here: Iterable[str]) -> str:
    """A hint for a key that is not known where it stands: the section it belongs in, or the nearest name."""
    return f"; it belongs in section {section_of(name)}" if name in kinds else nearest(str(name), here)


def _load(path: str):
    """What a YAML file holds."""
    file = Path(path).expanduser()
    if not file.suffix and file.name == path:  # the name of one of the course's own
        own = [folder / f"{path}.yaml" for folder in CONFIGS]
        file = next((known for known in own if known.exists()), own[0])
    file = file if file.exists() or file.is_absolute() else ROOT / file
    try:
        return yaml.load(decode_text(file.read_bytes(), f"config {path}"), _Strict)  # a SafeLoader
    except FileNotFoundError:
        folders = {file.parent, *CONFIGS} if file.parent in CONFIGS else {file.parent}
        near = nearest(file.stem, [known.stem for folder in folders for known in folder.glob("*.yaml")])
        raise UserError(f"config {path} does not exist{near}") from None
    except OSError as error:
        raise UserError(f"config {path} cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if "\\t" in problem:
            problem = "a tab stands where only spaces may; indent with spaces"
        raise UserError(f"{path}{where}: {problem}") from None


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice: the first value would be lost without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} stands twice; keep one", node.value[number][0].start_mark
                )
        return super().construct_mapping(node, deep)


def checked(where: str, kind, value):
    """A value as the type of its setting asks. Raises UserError for another."""
    choices = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None:
            return None
        kind = next(choice for choice in choices if choice is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if value not in choices:
            raise UserError(
                f"{where} is {value!r}{nearest(str(value), choices)}; it must be {' or '.join(choices)}"
            )
        return value
    if kind is float and isinstance(value, str):  # YAML takes 1e-3 for a word
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    asked = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}[kind]
    hint = (
        "; YAML reads no, off, yes and on as true or false: put a name in quotes"
        if kind is str and isinstance(value, bool)
        else ""
    )
    raise UserError(f"{where} is {'empty' if value is None else repr(value)}; it must be {asked}{hint}")
