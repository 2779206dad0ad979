"""--plan: memory of each rank, communication between ranks, time of a step."""

from typing import Dict, List, NamedTuple, Optional, Sequence

from data.formats.manifest import read_manifest
from training.config import MultiDeviceConfig, TrainConfig
from training.cost.communication import Exchange, Speeds, step_seconds
from training.cost.estimate import HEAD, estimate

GIB, MIB = 2**30, 2**20
ROOMY = 0.9  # of a device's memory: what needs less fits even if the estimate is 10 % too low
LARGEST = {
    "activations": "a smaller --batch_size or --accumulate reduces its activations",
    HEAD: "a lower --sample_rate or a smaller --batch_size reduces its softmax",
}
STATE = "more devices reduce its slice of the class centers"


class Hardware(NamedTuple):
    """The devices of a planned run; None: unknown."""

    per_host: int = 1  # devices of each host
    hosts: int = 1
    bandwidth: Optional[float] = None  # Gbit/s to the next rank, of the slowest link
    images_per_second: Optional[float] = None  # of a device by itself
    device_memory: Optional[float] = None  # GiB

    @property
    def size(self) -> int:
        """All devices."""
        return self.per_host * self.hosts


ONE_DEVICE = Hardware()


def print_plan(config: MultiDeviceConfig) -> int:
    """Prints what a run would need; without --num_output the dataset is read."""
    identities = config.num_output
    if identities is None:
        assert config.tfrecords_file_path is not None  # run_multi_device checks it
        identities = read_manifest(config.tfrecords_file_path).identities
    hardware = Hardware(
        config.num_devices or 1,
        max(config.hosts, len(config.worker_hosts)),
        config.bandwidth,
        config.images_per_second,
        config.device_memory,
    )
    print("\n".join(plan_lines(config, identities, hardware)))
    return 0


def plan_lines(config: TrainConfig, identities: int, hardware: Hardware = ONE_DEVICE) -> List[str]:
    """The lines of a plan."""
    found = estimate(config, identities, hardware.per_host, hardware.hosts)
    lines = _title(config, identities, hardware)
    lines += _memory("memory of a rank's device", found.device)
    lines += _memory("memory of a host's process besides", found.host)
    if hardware.size > 1:
        lines += _communication(found.exchanges)
    if hardware.images_per_second:
        lines += _time(config.batch_size, found.exchanges, hardware)
    return lines + ["", _conclusion(found.device, hardware.device_memory)]


def _title(config: TrainConfig, identities: int, hardware: Hardware) -> List[str]:
    size = hardware.size
    share = config.batch_size // size
    net = f"{config.lineage} {config.net_depth}, {config.precision}, {config.optimizer}"
    return [
        f"{identities:,} identities at sample rate {config.sample_rate:g} on {size} ranks "
        f"({hardware.hosts} x {hardware.per_host}), {identities // size:,} per rank",
        f"{net}; batch {config.batch_size:,}, {share:,} per rank"
        + (f", in {config.accumulate} parts" if config.accumulate > 1 else ""),
    ]


def _memory(title: str, uses: Dict[str, int]) -> List[str]:
    rows = list(uses.items()) + [("total", sum(uses.values()))]
    return ["", f"{title:40}{'GiB':>9}"] + [f"  {use:38}{size / GIB:9.3f}" for use, size in rows]


def _communication(exchanges: Sequence[Exchange]) -> List[str]:
    lines = ["", f"{'communication of a rank per step':40}{'calls':>9}{'MiB':>10}{'MiB sent':>10}"]
    for each in exchanges:
        what = f"{each.what} ({each.op})"
        lines.append(f"  {what:38}{each.calls:9}{each.payload / MIB:10.3f}{each.sent / MIB:10.3f}")
    total, calls = sum(each.sent for each in exchanges), sum(each.calls for each in exchanges)
    return lines + [f"  {'total':38}{calls:9}{total / MIB:20.3f}"]


def _time(batch_size: int, exchanges: Sequence[Exchange], hardware: Hardware) -> List[str]:
    size, images_per_second = hardware.size, hardware.images_per_second or 0.0
    if size > 1 and not hardware.bandwidth:
        raise ValueError(
            "--images_per_second is the speed of a device, but that of the network is missing; "
            "pass --bandwidth in Gbit/s, too."
        )
    images = batch_size / size
    speeds = Speeds(images_per_second, (hardware.bandwidth or 1.0) * 1e9 / 8)
    found = step_seconds(exchanges, size, images, speeds)
    names = ("a rank alone", "communication not overlapped", "gradients overlapped")
    times = (images / images_per_second,) + found
    lines = ["", f"{'time of a step':40}{'seconds':>9}{'images/s':>12}{'of alone':>9}"]
    for name, seconds in zip(names, times if size > 1 else times[:1]):
        rate, share = batch_size / seconds, times[0] / seconds
        lines.append(f"  {name:38}{seconds:9.4f}{rate:12,.0f}{share:9.0%}")
    return lines


def _conclusion(uses: Dict[str, int], device_memory: Optional[float]) -> str:
    """One sentence: whether a rank fits, and what would reduce it."""
    total = sum(uses.values()) / GIB
    if not device_memory:
        return f"A rank needs {total:.1f} GiB of its device; pass --device_memory to compare."
    needs = f"A rank needs {total:.1f} GiB of its device's {device_memory:g}"
    if total <= ROOMY * device_memory:
        return f"{needs}: it fits."
    largest = max(uses, key=lambda use: uses[use])
    remedy = LARGEST.get(largest, STATE)
    tight = total <= device_memory
    return f"{needs}: {'it may just fit' if tight else 'it does not fit'}; {remedy}."
