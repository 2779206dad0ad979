import pytest

from runtime.npu.cards import (
    AUTO,
    CARDS,
    KIND,
    OLDEST,
    PCI_DEVICES,
    check_devices,
    chosen_card,
    detected,
)
from runtime.npu.option_table import table


def pci(tmp_path, *devices):
    """The kernel's list of PCI devices, as (vendor, device)."""
    for place, (vendor, device) in enumerate(devices):
        entry = tmp_path / f"0000:0{place}:00.0"
        entry.mkdir()
        (entry / "vendor").write_text(f"{vendor}\n")
        (entry / "device").write_text(f"{device}\n")
    return {PCI_DEVICES: str(tmp_path)}


@pytest.mark.parametrize("name", sorted(CARDS))
def test_a_card_is_detected_by_its_pci_device_id(tmp_path, name):
    others = [("0x8086", "0xd802"), ("0x19e5", "0x1711")]  # another vendor, another device
    environ = pci(tmp_path, *others, ("0x19e5", CARDS[name].pci_device))
    assert detected(environ) is CARDS[name]
    assert CARDS[name].pci_device in chosen_card(AUTO, environ)[1]


def test_a_machine_without_a_card_gets_the_narrowest_rules(tmp_path):
    card, source = chosen_card(AUTO, pci(tmp_path))
    assert card is OLDEST and "--npu_card" in source


def test_the_variable_names_a_card_that_is_not_seen(tmp_path):
    assert chosen_card(AUTO, dict(pci(tmp_path), **{KIND: "910C"})) == (
        CARDS["910C"],
        "by NPU_CARD",
    )
    with pytest.raises(ValueError, match="NPU_CARD is 910D; set it to one of 910A, 910B, 910C"):
        detected({KIND: "910D"})


def test_the_flag_stands_above_the_machine(tmp_path):
    environ = pci(tmp_path, ("0x19e5", CARDS["910A"].pci_device))
    assert chosen_card("910B", environ) == (CARDS["910B"], "by --npu_card")


def test_only_a_card_with_infinities_has_bfloat16():
    for card in CARDS.values():
        assert card.bfloat16 is not card.saturates_only
        assert card.overflow == ("saturation" if card.saturates_only else "INF/NaN")


def test_the_tables_bfloat16_values_are_those_of_the_cards_that_have_it():
    names = tuple(name for name, card in CARDS.items() if card.bfloat16)
    for option in table().options.values():
        for value, cards in option.value_cards.items():
            assert cards == names or ("hif8" in value and cards == ())


@pytest.mark.parametrize(
    "name, devices, words",
    [
        ("910A", (0, 1, 2), "a run uses 1, 2, 4 or 8 of cards 0 to 7 of a 910A"),
        ("910A", (8,), "of cards 0 to 7"),
        ("910A", (3, 4), "2 cards must all be of 0 to 3, or all of 4 to 7"),
        ("910C", (16,), "a run uses cards 0 to 15 of a 910C"),
    ],
)
def test_devices_that_cannot_run_together_are_refused(name, devices, words):
    with pytest.raises(ValueError, match=f"here; .*{words}"):
        check_devices("here", devices, CARDS[name])


@pytest.mark.parametrize(
    "name, devices", [("910A", (4, 5)), ("910B", (0, 1, 2)), ("910C", tuple(range(16)))]
)
def test_devices_that_can_are_taken(name, devices):
    check_devices("here", devices, CARDS[name])
