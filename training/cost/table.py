"""The answer of --plan: what each rank needs, what travels, how long a step takes."""

from data.formats.manifest import read_manifest
from training.cost.communication import step_seconds
from training.cost.estimate import HEAD, estimate

GIB, MIB = 2**30, 2**20
ROOMY = 0.9  # of a device's memory: a need below it fits, even where the estimate is a tenth off
LARGEST = {
    "activations": "a smaller --batch_size, or --accumulate, makes its activations fewer",
    HEAD: "a lower --sample_rate or a smaller --batch_size makes its softmax smaller",
}
STATE = "more devices make its slice of the class centres smaller"


def print_plan(config):
    """Prints what a MultiDeviceConfig would need; without --num_output the data set is asked."""
    identities = config.num_output
    if identities is None:
        identities = read_manifest(config.tfrecords_file_path).identities
    lines = plan_lines(
        config,
        identities,
        config.num_devices or 1,
        max(config.hosts, len(config.worker_hosts)),
        bandwidth=config.bandwidth,
        images_per_second=config.images_per_second,
        device_memory=config.device_memory,
    )
    print("\n".join(lines))
    return 0


def plan_lines(
    config,
    identities,
    per_host=1,
    hosts=1,
    bandwidth=None,
    images_per_second=None,
    device_memory=None,
):
    """The lines of a plan. per_host: devices of each host. bandwidth: Gbit/s from each rank to the
    next, of the slowest link. images_per_second: of a device by itself. device_memory: GiB."""
    size, found = per_host * hosts, estimate(config, identities, per_host, hosts)
    lines = _title(config, identities, per_host, hosts)
    lines += _memory("memory of a rank's device", found.device)
    lines += _memory("memory of a host's process beside", found.host)
    if size > 1:
        lines += _traffic(found.exchanges)
    if images_per_second:
        lines += _time(config, found.exchanges, size, images_per_second, bandwidth)
    return lines + ["", _conclusion(found.device, device_memory)]


def _title(config, identities, per_host, hosts):
    size = per_host * hosts
    share = config.batch_size // size
    net = f"{config.lineage} {config.net_depth}, {config.precision}, {config.optimizer}"
    return [
        f"{identities:,} identities at sample rate {config.sample_rate:g} on {size} ranks "
        f"({hosts} x {per_host}), {identities // size:,} a rank",
        f"{net}; batch {config.batch_size:,}, {share:,} a rank"
        + (f", in {config.accumulate} parts" if config.accumulate > 1 else ""),
    ]


def _memory(title, uses):
    rows = list(uses.items()) + [("in all", sum(uses.values()))]
    return ["", f"{title:40}{'GiB':>9}"] + [f"  {use:38}{size / GIB:9.3f}" for use, size in rows]


def _traffic(exchanges):
    lines = ["", f"{'a rank says in a step':40}{'calls':>9}{'MiB':>10}{'MiB sent':>10}"]
    for one in exchanges:
        what = f"{one.what} ({one.op})"
        lines.append(f"  {what:38}{one.calls:9}{one.payload / MIB:10.3f}{one.sent / MIB:10.3f}")
    total = sum(one.sent for one in exchanges)
    return lines + [f"  {'in all':38}{sum(one.calls for one in exchanges):9}{total / MIB:20.3f}"]


def _time(config, exchanges, size, images_per_second, bandwidth):
    if size > 1 and not bandwidth:
        raise ValueError(
            "--images_per_second says how fast a device is, and nothing how fast the network is; "
            "pass --bandwidth in Gbit/s, too."
        )
    images = config.batch_size / size
    found = step_seconds(exchanges, size, images, images_per_second, (bandwidth or 1.0) * 1e9 / 8)
    names = ("a rank alone", "nothing travels beside", "gradients travel beside")
    times = (images / images_per_second,) + found
    lines = ["", f"{'time of a step':40}{'seconds':>9}{'images/s':>12}{'of alone':>9}"]
    for name, seconds in zip(names, times if size > 1 else times[:1]):
        rate, share = config.batch_size / seconds, times[0] / seconds
        lines.append(f"  {name:38}{seconds:9.4f}{rate:12,.0f}{share:9.0%}")
    return lines


def _conclusion(uses, device_memory):
    """One sentence: whether a rank fits, and what would make it."""
    total = sum(uses.values()) / GIB
    if not device_memory:
        return f"A rank needs {total:.1f} GiB of its device; say --device_memory to compare."
    says = f"A rank needs {total:.1f} GiB of its device's {device_memory:g}"
    if total <= ROOMY * device_memory:
        return f"{says}: it fits."
    largest = max(uses, key=uses.get)
    remedy = LARGEST.get(largest, STATE)
    tight = total <= device_memory
    return f"{says}: {'it may just fit' if tight else 'it does not fit'}; {remedy}."
