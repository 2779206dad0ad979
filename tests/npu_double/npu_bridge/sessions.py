"""tf.Session and tf.InteractiveSession as the adapter wraps them.

Their configuration is checked, and what they compile is counted."""

import re

import tensorflow as tf
from npu_bridge.known import KNOWN, MAIN
from npu_bridge.world import Mistake, current, newest, old, world
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

_PLAIN = {}  # (class, name) -> its own method
OFF = rewriter_config_pb2.RewriterConfig.OFF


def watch():
    """Wraps both classes, once a process; so does the adapter, from r1.9 on, to add its entry."""
    assert not _PLAIN, "tf.Session is wrapped already"
    for session in (tf.compat.v1.Session, tf.compat.v1.InteractiveSession):
        _watch(session)


def _watch(session):
    for name in ("__init__", "run"):
        _PLAIN[session, name] = getattr(session, name)
    begin, run = session.__init__, session.run

    def watched_begin(self, target="", graph=None, config=None):
        config = config_pb2.ConfigProto() if config is None else config
        if not old() and not entries(config):
            raise Mistake("a session without NpuOptimizer: the adapter would add one, and compile")
        self.npu_values = checked(config)
        self.npu_rank = current()
        if self.npu_values["use_off_line"] and world().size > 1:
            config = type(config).FromString(config.SerializeToString())
            config.use_per_session_threads = True  # a rank's collectives wait without the others'
            config.inter_op_parallelism_threads = 64
        begin(self, target, graph, config)

    def watched_run(self, fetches, feed_dict=None, options=None, run_metadata=None):
        if self.npu_values["use_off_line"]:
            names = fetched(fetches)
            fed = sorted(name_of(key) for key in feed_dict or {})
            if (names, fed) not in self.npu_rank.fetch_sets:
                self.npu_rank.fetch_sets.append((names, fed))
            turns = getattr(self.graph, "npu_iterations", 1) if "IterationOp" in names else 1
            self.npu_rank.runs["steps"] += turns if "IterationOp" in names else 0
            for _ in range(turns - 1):
                run(self, self.graph.get_operation_by_name("IterationOp"), feed_dict)
        return run(self, fetches, feed_dict, options, run_metadata)

    session.__init__, session.run = watched_begin, watched_run


def leave():
    """Unwraps them, for the tests that come after."""
    for (session, name), method in _PLAIN.items():
        setattr(session, name, method)
    _PLAIN.clear()


def run_on_host(session, fetches, feed_dict=None):
    """What the adapter runs by itself, and compiles nothing for."""
    return _PLAIN[type(session), "run"](session, fetches, feed_dict)


def name_of(item):
    return getattr(item, "name", None) or str(item)


def fetched(fetches):
    """The names of all that is fetched, sorted: what decides which graph is compiled."""
    if isinstance(fetches, dict):
        return fetched(list(fetches.values()))
    if isinstance(fetches, (list, tuple)):
        return sorted({name for item in fetches for name in fetched(item)})
    return [name_of(fetches)]


def entries(config):
    found = config.graph_options.rewrite_options.custom_optimizers
    return [entry for entry in found if entry.name == "NpuOptimizer"]


def checked(config):
    """The options of a ConfigProto's one entry, with the defaults of those that are not there."""
    rewrite = config.graph_options.rewrite_options
    if not entries(config):
        return {"use_off_line": False}  # before r1.9 nobody added one: plain TensorFlow
    if len(entries(config)) > 1:
        raise Mistake("NpuOptimizer is there more than once")
    if rewrite.remapping != OFF or int(rewrite.memory_optimization) != int(OFF):
        raise Mistake("remapping and memory_optimization must be OFF (2)")
    if not config.allow_soft_placement:
        raise Mistake("allow_soft_placement must be on")
    if config.graph_options.optimizer_options.global_jit_level != -1:
        raise Mistake("global_jit_level must be OFF (-1)")
    values = {"use_off_line": True, "iterations_per_loop": 1, "enable_data_pre_proc": False}
    for key, value in entries(config)[0].parameter_map.items():
        values[key] = option(key, value)
    if values["iterations_per_loop"] > 1:
        if not values["enable_data_pre_proc"] or values.get("mix_compile_mode"):
            raise Mistake("iterations_per_loop needs enable_data_pre_proc, and the whole graph")
    if (values.get("enable_dump") or values.get("enable_dump_debug")) and "dump_path" not in values:
        raise Mistake("if use dump function, dump_path must be set.")
    mixed = values.get("precision_mode", "").startswith("allow_mix_precision")
    if values.get("modify_mixlist") and not mixed:
        raise Mistake("modify_mixlist needs precision_mode allow_mix_precision")
    return values


def option(key, value):
    """One option's value, of the field, the type and the version that the adapter reads."""
    if key not in KNOWN:
        raise Mistake(f"NpuOptimizer has no option {key}: the adapter would ignore it")
    field, since, allowed = KNOWN[key]
    if value.WhichOneof("value") != field:
        raise Mistake(f"{key} is read from .{field}, not from .{value.WhichOneof('value')}")
    if since > newest():
        raise Mistake(f"{key} came with {f'r1.{since}' if since < MAIN else 'CANN 9'}")
    found = getattr(value, field)
    found = found.decode() if field == "s" else found
    if allowed and not re.match(f"^({allowed})$", str(found)):
        raise Mistake(f"{key} is {found}, and must match {allowed}")
    return found
