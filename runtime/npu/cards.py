"""The cards of Ascend that train: 910A, 910B (A2) and 910C (A3), and what differs between them.

None of it was measured here: docs/ascend.md names the source of each line.
"""

import dataclasses
import os
import re
from typing import Dict, Mapping, Optional, Tuple

KIND = "NPU_CARD"  # environment variable: the kind of card, where it cannot be detected
PCI_DEVICES = "NPU_PCI_DEVICES"  # where the kernel lists PCI devices, if not in /sys
_HUAWEI = "0x19e5"  # PCI vendor


@dataclasses.dataclass(frozen=True)
class NpuCard:
    """One kind of card. A device is what has a number of its own and is a rank of a run."""

    name: str  # as --npu_card names it
    products: str  # Huawei's name of the product line
    pci_device: str  # the card's PCI device id
    bfloat16: bool  # whether it computes in bfloat16
    saturates_only: bool  # whether an overflow can only saturate; else infinity or NaN by default
    default_precision: str  # the adapter's own precision_mode in training, where none is set
    hccl_timeout: Tuple[int, int]  # seconds, the smallest and the largest; 0: no limit
    devices: int  # of a server
    counts: Optional[Tuple[int, ...]]  # how many of them a run may use; None: not documented
    ring: Optional[int]  # devices of one ring: as many or fewer must share it; None: no rings
    table_versions: Tuple[str, ...]  # the rank table's "version"

    @property
    def overflow(self) -> str:
        """The overflow mode that the device is in by default."""
        return "saturation" if self.saturates_only else "INF/NaN"


CARDS: Dict[str, NpuCard] = {
    card.name: card
    for card in (
        NpuCard(
            name="910A",
            products="Atlas training products",
            pci_device="0xd801",
            bfloat16=False,
            saturates_only=True,
            default_precision="allow_fp32_to_fp16",
            hccl_timeout=(1, 17340),
            devices=8,
            counts=(1, 2, 4, 8),
            ring=4,
            table_versions=("1.0",),
        ),
        NpuCard(
            name="910B",
            products="Atlas A2 training products",
            pci_device="0xd802",
            bfloat16=True,
            saturates_only=False,
            default_precision="must_keep_origin_dtype",
            hccl_timeout=(0, 2147483647),
            devices=16,  # Atlas 200T A2 Box16; other servers have 8
            counts=None,
            ring=None,
            table_versions=("1.0",),
        ),
        NpuCard(
            name="910C",
            products="Atlas A3 training products",
            pci_device="0xd803",
            bfloat16=True,
            saturates_only=False,
            default_precision="must_keep_origin_dtype",
            hccl_timeout=(0, 2147483647),
            devices=16,  # 8 cards of two devices each
            counts=None,
            ring=None,
            table_versions=("1.0", "1.2"),  # 1.2: a SuperPoD
        ),
    )
}
OLDEST = CARDS["910A"]  # with the narrowest rules: what runs on it runs on the others
AUTO = "auto"


def detected(environ: Mapping[str, str]) -> Optional[NpuCard]:
    """The kind of this machine's cards by NPU_CARD or their PCI device id; None: it has none."""
    kind = environ.get(KIND)
    if kind:
        if kind not in CARDS:
            raise ValueError(f"{KIND} is {kind}; set it to one of {', '.join(CARDS)}.")
        return CARDS[kind]
    root = environ.get(PCI_DEVICES, "/sys/bus/pci/devices")
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    for name in names:
        if _read(root, name, "vendor") != _HUAWEI:
            continue
        device = _read(root, name, "device")
        for card in CARDS.values():
            if card.pci_device == device:
                return card
    return None


def chosen_card(name: str, environ: Mapping[str, str]) -> Tuple[NpuCard, str]:
    """--npu_card -> (card, where it is known from). auto: by PCI device id, else the 910A."""
    if name != AUTO:
        return CARDS[name], "by --npu_card"
    found = detected(environ)
    if found is not None:
        source = KIND if environ.get(KIND) else f"its PCI device id {found.pci_device}"
        return found, f"by {source}"
    return OLDEST, "as no card was found by its PCI device id; --npu_card names another"


def check_devices(where: str, devices: Tuple[int, ...], card: NpuCard) -> None:
    """Refuses devices of one server that a run on this kind of card cannot use together.

    where: the beginning of the sentence, as "table.json uses cards 0,1 of 10.0.0.1"."""
    last, count = max(devices), len(devices)
    if last >= card.devices or (card.counts and count not in card.counts):
        amount = f"{_either(card.counts)} of cards" if card.counts else "cards"
        raise ValueError(f"{where}; a run uses {amount} 0 to {card.devices - 1} of a {card.name}.")
    ring = card.ring
    if ring and 1 < count <= ring and min(devices) // ring != last // ring:
        raise ValueError(
            f"{where}; {count} cards must all be of 0 to {ring - 1}, or all of {ring} to "
            f"{card.devices - 1}, which are connected."
        )


def _either(counts: Tuple[int, ...]) -> str:
    return f"{', '.join(map(str, counts[:-1]))} or {counts[-1]}"


def _read(root: str, name: str, entry: str) -> str:
    try:
        with open(os.path.join(root, name, entry), encoding="ascii") as stream:
            return re.sub(r"\s+", "", stream.read()).lower()
    except OSError:  # a device that was removed, or one that only root may read
        return ""
