"""A frozen dataclass -> a command line, a YAML file under it, and a sentence for each mistake.

A field is declared once, by `flag(default, help, ...)`; its name is the flag and the YAML key, its
annotation the type: int, float, str, bool, Optional[...] of these, or Tuple[int|float|str, ...].
"""

import argparse
import dataclasses
import difflib
import typing

import yaml

from runtime.cli import complain


def flag(
    default,
    help,
    group="flags",
    choices=None,
    low=None,
    high=None,
    above=None,
    below=None,
    alias=(),
    late=False,
    resume="same",
):
    """A field of a script's dataclass. low <= value <= high, above < value < below.
    Aliases work and stay out of --help; a default of `dataclasses.MISSING` makes it required.
    late: stands behind the others in --help, whichever class it comes from.
    resume: "free" where a resumed run may change the value, else "same"."""
    required = default is dataclasses.MISSING
    return dataclasses.field(
        default=None if required else default,
        metadata=dict(
            help=help,
            group=group,
            choices=choices,
            low=low,
            high=high,
            above=above,
            below=below,
            alias=tuple(alias),
            required=required,
            late=late,
            resume=resume,
        ),
    )


def parse_flags(config_class, argv=None, description=None):
    """argv (default: the process's own) -> an instance of config_class.
    The command line wins over --config's YAML, which wins over the defaults; an unknown name, a
    wrong type or a value out of range is a ValueError that names it."""
    parser = _parser(config_class, description)
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ValueError(_unknown(unknown[0].split("=")[0], config_class, prefix="--"))
    given = {name: value for name, value in vars(known).items() if value is not _ABSENT}
    values = read_yaml(given["config"], config_class) if given.get("config") else {}
    values.update(given)
    return build(config_class, values)


def build(config_class, values):
    """{name: value} -> an instance of config_class with each value checked against its field."""
    missing = [
        f.name
        for f in dataclasses.fields(config_class)
        if f.metadata["required"] and values.get(f.name) is None
    ]
    if missing:
        meaning = _field(config_class, missing[0]).metadata["help"]
        file_too = " or in the --config file" if _has(config_class, "config") else ""
        raise ValueError(
            f"--{missing[0]} is missing: {meaning}; pass it on the command line{file_too}."
        )
    for name, value in values.items():
        _check_range(_field(config_class, name), value)
    return config_class(**values)


def read_yaml(path, config_class):
    """A YAML file of flags -> {name: typed value}. Keys are the flags' names or aliases."""
    with open(path, encoding="utf-8") as stream:
        try:
            content = yaml.safe_load(stream)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds no `name: value` lines; write one flag a line, without the dashes."
        )
    names = {
        alias: f.name
        for f in dataclasses.fields(config_class)
        for alias in (f.name,) + f.metadata["alias"]
    }
    hints = typing.get_type_hints(config_class)
    values = {}
    for key, value in content.items():
        if key not in names:
            raise ValueError(f"{path}: {_unknown(str(key), config_class)}")
        values[names[key]] = _typed(hints[names[key]], value, f"{path}: {key}")
    return values


def _parser(config_class, description):
    parser = _Parser(
        description=description,
        argument_default=_ABSENT,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32, width=100
        ),
    )
    groups, hints = {}, typing.get_type_hints(config_class)
    for field in sorted(dataclasses.fields(config_class), key=lambda f: f.metadata["late"]):
        meta, kind = field.metadata, hints[field.name]
        group = groups.setdefault(meta["group"], None) or parser.add_argument_group(meta["group"])
        groups[meta["group"]] = group
        options = dict(dest=field.name, type=_reader(kind, field.name))
        if _is_tuple(kind):
            options["nargs"] = "+"
            options["action"] = _Flatten
        elif _plain(kind) is bool:
            options.update(nargs="?", const=True)
        shown = "" if field.default in (None, "") else f" (default: {_spell(field.default)})"
        allowed = f" one of {', '.join(map(str, meta['choices']))}" if meta["choices"] else ""
        metavar = _metavar(kind, field.name)
        group.add_argument(
            f"--{field.name}",
            help=(meta["help"] + allowed + shown).replace("%", "%%"),
            metavar=metavar,
            **options,
        )
        for alias in meta["alias"]:
            group.add_argument(f"--{alias}", help=argparse.SUPPRESS, **options)
        if _plain(kind) is bool:
            group.add_argument(
                f"--no_{field.name}",
                dest=field.name,
                action="store_const",
                const=False,
                help=argparse.SUPPRESS,
            )
    return parser


def _metavar(kind, name):
    """What --help shows in place of a value."""
    plain = _plain(kind.__args__[0] if _is_tuple(kind) else kind)
    if plain is str and name.split("_")[-1] in ("path", "file", "config", "images", "output"):
        return "PATH"
    return {bool: "yes|no", int: "N", float: "X"}.get(plain, "TEXT")


class _Absent:
    """What argparse stores for a flag that was not given, so that None stays a value."""

    def __repr__(self):
        return "absent"


_ABSENT = _Absent()


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose refusal is one sentence, as every other refusal here."""

    def error(self, message):
        self.exit(complain(f"{message}."))


class _Flatten(argparse.Action):
    """`--lr_steps 1 2 3` and `--lr_steps 1,2,3` are the same tuple."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(item for value in values for item in value))


def _reader(kind, name):
    """Text of the command line -> a value of `kind`."""

    def read(text):
        try:
            if _is_tuple(kind):
                return [_parse(kind.__args__[0], part) for part in text.split(",") if part]
            return _parse(_plain(kind), text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_article(kind)}") from None

    read.__name__ = name
    return read


def _parse(kind, text):
    if kind is bool:
        if text.lower() in ("true", "yes", "1"):
            return True
        if text.lower() in ("false", "no", "0"):
            return False
        raise ValueError(text)
    if kind is int:
        return int(text.replace("_", ""))
    return kind(text)


def _typed(kind, value, where):
    """A YAML value as `kind`; a list or a comma-separated text for a tuple."""
    if value is None and _plain(kind) is not kind:
        return None
    try:
        if _is_tuple(kind):
            parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
            return tuple(_parse(kind.__args__[0], str(part).strip()) for part in parts)
        if isinstance(value, (dict, list)):
            raise ValueError(value)
        return _parse(_plain(kind), str(value))
    except ValueError:
        raise ValueError(f"{where} is {value!r}, which is not {_article(kind)}.") from None


def _check_range(field, value):
    meta = field.metadata
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        if meta["choices"] and item not in meta["choices"]:
            near = difflib.get_close_matches(
                str(item), [str(choice) for choice in meta["choices"]], 1
            )
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"--{field.name} {item} is not known; choose one of "
                f"{', '.join(map(str, meta['choices']))}.{hint}"
            )
        outside = (
            (meta["low"] is not None and not item >= meta["low"])
            or (meta["high"] is not None and not item <= meta["high"])
            or (meta["above"] is not None and not item > meta["above"])
            or (meta["below"] is not None and not item < meta["below"])
        )
        if outside:
            raise ValueError(f"--{field.name} {item} is out of range: it must be {_range(meta)}.")


def _range(meta):
    words = {"low": "{} or more", "above": "above {}", "high": "{} or less", "below": "below {}"}
    return " and ".join(
        text.format(meta[key]) for key, text in words.items() if meta[key] is not None
    )


def _unknown(name, config_class, prefix=""):
    known = [prefix + f.name for f in dataclasses.fields(config_class)]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "--help lists the known ones."
    return f"{name} is not a known flag; {hint}"


def _field(config_class, name):
    return next(f for f in dataclasses.fields(config_class) if f.name == name)


def _has(config_class, name):
    return any(f.name == name for f in dataclasses.fields(config_class))


def _is_tuple(kind):
    return getattr(kind, "__origin__", None) in (tuple, typing.Tuple)


def _plain(kind):
    """Optional[X] -> X; anything else as it is."""
    inner = [item for item in getattr(kind, "__args__", None) or () if item is not type(None)]
    return (
        inner[0] if getattr(kind, "__origin__", None) is typing.Union and len(inner) == 1 else kind
    )


def _article(kind):
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return f"a list of: {names[kind.__args__[0]]}" if _is_tuple(kind) else names[_plain(kind)]


def _spell(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
