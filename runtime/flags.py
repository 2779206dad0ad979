"""A frozen dataclass -> a command line, a YAML file of the same names, and a sentence per mistake.

A field is declared once, by `flag(default, help, ...)`; its name is the flag and the YAML key, its
annotation the type: int, float, str, bool, Optional[...] of these, or Tuple[int|float|str, ...].
A field declared by `nested(Class)` holds the flags of another dataclass: `config.cluster.hosts` is
`--hosts` on the command line and `hosts:` in YAML.
"""

import argparse
import dataclasses
import difflib
import os
import shutil
import sys
import typing
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
)

from runtime.cli import complain

C = typing.TypeVar("C")

DEVICES = ("cpu", "gpu", "npu")  # the choices of --device

# What users of other trainers type -> the flags that may be meant, the first that exists.
SYNONYMS = {
    "learning_rate": ("lr",),
    "base_lr": ("lr",),
    "epochs": ("epoch",),
    "num_epochs": ("epoch",),
    "max_steps": ("epoch",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "wd": ("weight_decay",),
    "num_classes": ("num_output",),
    "classes": ("num_output",),
    "depth": ("net_depth",),
    "layers": ("net_depth",),
    "network": ("lineage",),
    "arch": ("lineage",),
    "backbone": ("lineage",),
    "model": ("lineage", "ckpt_file"),
    "embedding_dim": ("embedding_size",),
    "optim": ("optimizer",),
    "opt": ("optimizer",),
    "scheduler": ("schedule",),
    "lr_schedule": ("schedule",),
    "amp": ("precision",),
    "fp16": ("precision",),
    "dtype": ("precision",),
    "grad_clip": ("clip_norm",),
    "clip_grad": ("clip_norm",),
    "gradient_accumulation_steps": ("accumulate",),
    "gradient_acc": ("accumulate",),
    "gpus": ("num_devices", "device"),
    "gpu": ("device",),
    "workers": ("workers", "num_workers"),
    "data": ("tfrecords_file_path", "path", "images"),
    "data_dir": ("tfrecords_file_path", "path", "images"),
    "dataset": ("tfrecords_file_path", "path"),
    "train_dir": ("tfrecords_file_path",),
    "val_dir": ("eval_db_path",),
    "output_dir": ("output_path", "output"),
    "out": ("output_path", "output"),
    "checkpoint": ("ckpt_file", "ckpt_path"),
    "ckpt": ("ckpt_file", "ckpt_path"),
    "ckpt_dir": ("ckpt_path", "ckpt_file"),
    "weights": ("ckpt_file", "finetune"),
    "pretrained": ("finetune",),
    "restore": ("resume",),
}
LONGEST_CHOICES = 44  # characters of {a,b,c} before the choices are listed in the help text instead
NARROWEST, WIDEST = 50, 120  # columns of a help page: outside of these lines are hard to read


def flag(
    default: Any,
    help: str,
    group: str = "flags",
    choices: Optional[Sequence[Any]] = None,
    low: Optional[float] = None,
    high: Optional[float] = None,
    above: Optional[float] = None,
    below: Optional[float] = None,
    alias: Sequence[str] = (),
    late: bool = False,
    positional: bool = False,
    common: bool = False,
    resume: str = "",
    hidden: bool = False,
) -> Any:
    """A field of a script's dataclass. low <= value <= high, above < value < below.

    A default of `dataclasses.MISSING` makes the flag required. Aliases work and are not in --help.
    late: comes last in --help, whichever class it is of. positional: the name may be omitted; a
    tuple takes all remaining arguments. common: where a class has such flags, --help shows only
    these and the required ones, and --help_all shows every flag. resume: "free" where a resumed
    run may change it. hidden: not in any help."""
    required = default is dataclasses.MISSING
    assert resume in ("", "free"), resume
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
            positional=positional,
            common=common or required or positional,
            resume=resume,
            hidden=hidden,
        ),
    )


def nested(config_class: type) -> Any:
    """A field that holds a dataclass of flags; `config_class()` is its default."""
    return dataclasses.field(default_factory=config_class, metadata=dict(nested=config_class))


class Flag(NamedTuple):
    """A field of a config class or of one nested in it."""

    name: str  # of the flag, and of the field
    path: Tuple[str, ...]  # fields from the config to this one: ("cluster", "num_devices")
    kind: Any  # the annotation: int, Optional[float], Tuple[str, ...]
    default: Any  # None for a required flag
    meta: Mapping[str, Any]  # the arguments of `flag`


def flags_of(config_class: type) -> List[Flag]:
    """The flags of a config class and of those nested in it, in the order of the fields."""
    hints, found = typing.get_type_hints(config_class), []
    for field in dataclasses.fields(config_class):
        inner = field.metadata.get("nested")
        if inner is None:
            hint = hints[field.name]
            found.append(Flag(field.name, (field.name,), hint, field.default, field.metadata))
        else:
            found += [item._replace(path=(field.name,) + item.path) for item in flags_of(inner)]
    names = [item.name for item in found]
    assert len(set(names)) == len(names), f"{config_class.__name__} has a flag twice"
    return found


def values_of(config: Any) -> Dict[str, Any]:
    """A config -> {flag: value}, nested ones included: what `build` makes the config of."""
    found = {}
    for item in flags_of(type(config)):
        value = config
        for name in item.path:
            value = getattr(value, name)
        found[item.name] = value
    return found


def replace(config: C, **values: Any) -> C:
    """The config with some flags changed, nested ones included; nothing is checked."""
    return _assemble(type(config), dict(values_of(config), **values))


def free_on_resume(config_class: type) -> Set[str]:
    """Names of the flags that a resumed run may change."""
    return {item.name for item in flags_of(config_class) if item.meta["resume"] == "free"}


def parse_flags(
    config_class: Type[C], argv: Optional[Sequence[str]] = None, description: Optional[str] = None
) -> C:
    """argv (default: the process's own) -> an instance of config_class.

    The command line wins over --config's YAML, which wins over the defaults; an unknown name, a
    wrong type or a value out of range is a ValueError that names it. A class attribute
    HELP_PAGES = {"npu_help": function} makes --npu_help print function() and exit."""
    flags = flags_of(config_class)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help_all" in arguments or "--help" in arguments or "-h" in arguments:
        print(_help_page(flags, description, everything="--help_all" in arguments), end="")
        raise SystemExit(0)
    for name, page in _help_pages(config_class).items():
        if f"--{name}" in arguments:
            print(page())
            raise SystemExit(0)
    known, unknown = _parser(flags).parse_known_args(_spell_switches(arguments, flags))
    given = {name: value for name, value in vars(known).items() if value is not _ABSENT}
    given.update(_positional(unknown, given, flags))
    values = read_yaml(given["config"], config_class) if given.get("config") else {}
    values.update(given)
    return build(config_class, values)


def parse_command(
    commands: Mapping[str, type], argv: Optional[Sequence[str]] = None, description: str = ""
) -> Tuple[str, Any]:
    """argv of a script with subcommands, `infer.py embed --images x` -> (name, its config).

    commands: {name: config class}; the first line of a class's docstring is its help."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = ", ".join(commands)
    if arguments and arguments[0] in ("-h", "--help", "--help_all"):
        lines = [f"  {name:<12} {_first_sentence(kind)}" for name, kind in commands.items()]
        print(f"{description.strip()}\n\ncommands (each has its own --help):")
        print("\n".join(lines))
        raise SystemExit(0)
    if not arguments:
        raise ValueError(f"a command is missing; pass one of {names}.")
    if arguments[0] not in commands:
        near = difflib.get_close_matches(arguments[0], commands, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{arguments[0]} is not a command; choose one of {names}.{hint}")
    config_class = commands[arguments[0]]
    return arguments[0], parse_flags(config_class, arguments[1:], config_class.__doc__)


def build(config_class: Type[C], values: Mapping[str, Any]) -> C:
    """{flag: value} -> an instance of config_class with each value checked against its field."""
    flags = {item.name: item for item in flags_of(config_class)}
    for name, item in flags.items():
        if item.meta["required"] and values.get(name) is None:
            place = " or in the --config file" if "config" in flags else ""
            shown = name if item.meta["positional"] else f"--{name}"
            raise ValueError(
                f"{shown} is missing: {item.meta['help']}; pass it on the command line{place}."
            )
    for name, value in values.items():
        _check_range(flags[name], value)
    return _assemble(config_class, values)


def read_yaml(path: str, config_class: type) -> Dict[str, Any]:
    """A YAML file of flags -> {name: typed value}. Keys are the flags' names or aliases."""
    import yaml  # here, so that a command line without a file needs no package

    with open(path, encoding="utf-8") as stream:
        try:
            content = yaml.safe_load(stream)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # UnicodeDecodeError is one
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} has no `name: value` lines; write one flag per line, without the dashes."
        )
    flags = flags_of(config_class)
    named = {alias: item for item in flags for alias in (item.name,) + item.meta["alias"]}
    values = {}
    for key, value in content.items():
        if key not in named:
            raise ValueError(f"{path}: {_unknown(str(key), flags)}")
        values[named[key].name] = _typed(named[key].kind, value, f"{path}: {key}")
    return values


def _assemble(config_class, values):
    """{flag: value} -> an instance, with the instances of nested classes inside."""
    own = {}
    for field in dataclasses.fields(config_class):
        inner = field.metadata.get("nested")
        if inner is not None:
            names = {item.name for item in flags_of(inner)}
            own[field.name] = _assemble(inner, {n: v for n, v in values.items() if n in names})
        elif field.name in values:
            own[field.name] = values[field.name]
    return config_class(**own)


def _parser(flags):
    parser = _Parser(argument_default=_ABSENT, allow_abbrev=False, add_help=False, prog=_program())
    for item in flags:
        options = dict(dest=item.name, type=_reader(item.kind, item.name))
        if _is_tuple(item.kind):
            options.update(nargs="+", action=_Flatten)
        for name in (item.name,) + item.meta["alias"]:
            parser.add_argument(f"--{name}", **options)
    return parser


def _spell_switches(arguments, flags):
    """--loud, --no_loud and --loud yes -> --loud=true, --loud=false and --loud=yes: a switch never
    takes a word that is not its value, as in `--decode PATH`."""
    switches = {
        name: item.name
        for item in flags
        if _plain(item.kind) is bool
        for name in (f"--{item.name}",) + tuple(f"--{alias}" for alias in item.meta["alias"])
    }
    found, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        positive = f"--{word[5:]}" if word.startswith("--no_") else ""
        if word in switches:
            takes = rest and rest[0].lower() in _YES + _NO
            found.append(f"{word}={rest.pop(0) if takes else 'true'}")
        elif positive in switches:
            found.append(f"{positive}=false")
        else:
            found.append(word)
    return found


def _positional(arguments, given, flags):
    """What argparse left over -> {name: value} of the positional flags; a ValueError otherwise."""
    unknown = [word for word in arguments if word.startswith("-")]
    if unknown:
        raise ValueError(_unknown(unknown[0].split("=")[0], flags, prefix="--"))
    values, rest = {}, list(arguments)
    for item in flags:
        if not item.meta["positional"] or not rest:
            continue
        if item.name in given:
            break
        read = _reader(item.kind, item.name)
        try:
            if _is_tuple(item.kind):
                values[item.name] = tuple(_parse(item.kind.__args__[0], word) for word in rest)
                rest = []
            else:
                values[item.name] = read(rest.pop(0))
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{item.name}: {error}.") from None
    if rest:
        raise ValueError(_unexpected(rest[0], flags))
    return values


def _unexpected(word, flags):
    """The sentence about an argument without a flag."""
    names = {item.name for item in flags}
    if word.endswith((".yaml", ".yml")) and "config" in names:
        return f"{word} has no flag; pass --config {word}."
    return f"{word} is an unexpected argument; every value needs a flag, and --help lists them."


def _help_page(flags, description, everything):
    """The text of --help: what the script does, its examples, then a line or two per flag."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns - 2, NARROWEST), WIDEST)
    flags = sorted((item for item in flags if not item.meta["hidden"]), key=_is_late)
    short = any(item.meta["common"] and not _is_automatic(item) for item in flags)
    shown = [item for item in flags if everything or not short or item.meta["common"]]
    places = [item.name for item in flags if item.meta["positional"]]
    parser = _Parser(
        usage=" ".join([_program()] + [f"[{name}]" for name in places] + ["[flags]"]),
        description=description.strip() if description else None,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=min(32, width // 3), width=width
        ),
        add_help=False,
        epilog=_more(len(flags), len(shown)),
    )
    groups = {}
    for item in shown:
        title = item.meta["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        metavar, text = _metavar(item)
        if item.meta["positional"]:
            text += "; the flag's name may be omitted"
        groups[title].add_argument(f"--{item.name}", help=text.replace("%", "%%"), metavar=metavar)
    return parser.format_help()


def _help_pages(config_class):
    """{flag: function} of the further help pages of a config class and of those nested in it."""
    pages = dict(getattr(config_class, "HELP_PAGES", {}))
    for field in dataclasses.fields(config_class):
        if field.metadata.get("nested"):
            pages.update(_help_pages(field.metadata["nested"]))
    return pages


def _is_late(item):
    return item.meta["late"]


def _is_automatic(item):
    """Whether a flag is common because every call needs it, not because it was declared so."""
    return item.meta["required"] or item.meta["positional"]


def _more(count, shown):
    return f"--help_all lists all {count} flags." if shown < count else None


def _metavar(item):
    """(what --help shows in place of a value, the help text with choices and default)."""
    kind, meta = item.kind, item.meta
    text = meta["help"].rstrip(":; ")
    metavar = "{" + ",".join(map(str, meta["choices"])) + "}" if meta["choices"] else ""
    if len(metavar) > LONGEST_CHOICES:
        text += f": one of {', '.join(map(str, meta['choices']))}"
        metavar = ""
    if item.default not in (None, "", ()) and not meta["required"]:
        text += f" (default: {_spell(item.default)})"
    if not metavar:
        plain = _plain(kind.__args__[0] if _is_tuple(kind) else kind)
        is_path = item.name.split("_")[-1] in ("path", "file", "config", "images", "output")
        metavar = {bool: "yes|no", int: "N", float: "X"}.get(plain, "PATH" if is_path else "TEXT")
    return metavar, text


def _program():
    """How the script was called: `python train_nets.py`, `python -m evaluation.report`, or
    `insightface-tf train`, which insightface_tf/__main__.py passes on."""
    if "INSIGHTFACE_TF_PROGRAM" in os.environ:
        return os.environ["INSIGHTFACE_TF_PROGRAM"]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name or spec.name == "__main__":
        return f"python {os.path.relpath(sys.argv[0])}" if sys.argv[0] else "python"
    package = ".__main__"
    name = spec.name[: -len(package)] if spec.name.endswith(package) else spec.name
    return f"python -m {name}"


class _Absent:
    """What argparse stores for a flag that was not given, so that None stays a value."""

    def __repr__(self):
        return "absent"


_ABSENT = _Absent()


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that ends in one sentence, like every other mistake of a user."""

    def error(self, message):
        prefix = "argument "
        self.exit(complain(f"{message[len(prefix) :] if message.startswith(prefix) else message}."))


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


_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


def _parse(kind, text):
    if kind is bool:
        if text.lower() in _YES:
            return True
        if text.lower() in _NO:
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


def _check_range(item, value):
    meta = item.meta
    for one in value if isinstance(value, tuple) else (value,):
        if one is None:
            continue
        if meta["choices"] and one not in meta["choices"]:
            near = difflib.get_close_matches(str(one), [str(c) for c in meta["choices"]], 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"--{item.name} {one} is not known; choose one of "
                f"{', '.join(map(str, meta['choices']))}.{hint}"
            )
        outside = (
            (meta["low"] is not None and not one >= meta["low"])
            or (meta["high"] is not None and not one <= meta["high"])
            or (meta["above"] is not None and not one > meta["above"])
            or (meta["below"] is not None and not one < meta["below"])
        )
        if outside:
            raise ValueError(f"--{item.name} {one} is out of range: it must be {_range(meta)}.")


def _range(meta):
    phrases = {"low": "{} or more", "above": "above {}", "high": "{} or less", "below": "below {}"}
    return " and ".join(
        text.format(meta[key]) for key, text in phrases.items() if meta[key] is not None
    )


def _unknown(name, flags, prefix=""):
    """The sentence about a name that is not a flag, with the one that is meant."""
    names = [item.name for item in flags]
    plain = name.lstrip("-").replace("-", "_").lower()
    meant = [other for other in SYNONYMS.get(plain, ()) if other in names]
    meant = meant or difflib.get_close_matches(plain, names, 1, cutoff=0.5)
    hint = f"did you mean {prefix}{meant[0]}?" if meant else "--help lists the known ones."
    return f"{name} is not a known flag; {hint}"


def _first_sentence(config_class):
    return (config_class.__doc__ or "").strip().splitlines()[0]


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
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
