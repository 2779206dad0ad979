"""Which sentence a build of TensorFlow and a machine's cards give; no card is needed for it."""

import pytest

from runtime import gpu_preflight
from runtime.gpu_preflight import Card, read_cards, sentence

# As tf.sysconfig.get_build_info() returns them: TensorFlow 2.21 from PyPI, and a build without PTX.
WHEEL = {
    "is_cuda_build": True,
    "cuda_version": "12.5.1",
    "cuda_compute_capabilities": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
}
NATIVE = dict(WHEEL, cuda_compute_capabilities=["sm_80", "sm_90"])
CPU = {"is_cuda_build": False}
A100 = "NVIDIA A100-SXM4-80GB, 8.0, 550.54.15\n"
H100 = "NVIDIA H100 80GB HBM3, 9.0, 550.54.15\n"
RTX_5090 = "NVIDIA GeForce RTX 5090, 12.0, 570.86.10\n"
M60 = "Tesla M60, 5.2, 470.57.02\n"


@pytest.mark.parametrize(
    "build, csv_text, expected",
    [
        (WHEEL, A100, "A100-SXM4-80GB (sm_80, driver 550.54.15): the kernels fit."),
        (WHEEL, A100.replace("8.0", "8.6"), "(sm_86, driver 550.54.15): the kernels fit."),
        (WHEEL, RTX_5090, "no kernels for it; the driver compiles those of compute_90"),
        (WHEEL, H100, "(sm_90, driver 550.54.15): no kernels for it; the driver compiles"),
        (NATIVE, H100, "(sm_90, driver 550.54.15): the kernels fit."),
        (NATIVE, RTX_5090, "(sm_120, driver 570.86.10): no kernels for it: install a newer"),
        (NATIVE, M60, "(sm_52, driver 470.57.02) is too old: install an older TensorFlow"),
        (WHEEL, None, "there is no NVIDIA driver or no NVIDIA card."),
        (CPU, None, "This TensorFlow is built for the CPU only."),
        (CPU, H100, "built for the CPU only, but the machine has NVIDIA H100 80GB HBM3 (sm_90"),
        (WHEEL, "Tesla K80, [N/A], 418.87\n", "Tesla K80 (driver 418.87): whether the kernels fit"),
        ({"is_cuda_build": True}, H100, "This TensorFlow uses CUDA. NVIDIA H100"),
    ],
)
def test_sentence_says_whether_the_kernels_fit(build, csv_text, expected):
    assert expected in sentence(build, csv_text)


def test_sentence_names_the_wheels_kernels_and_its_cuda():
    assert sentence(WHEEL, A100).startswith(
        "This TensorFlow is built for CUDA 12.5.1 with kernels for sm_60, sm_70, sm_80, sm_89, "
        "compute_90 (PTX)."
    )


def test_capabilities_without_a_prefix_are_kernels_and_ptx():
    build = dict(WHEEL, cuda_compute_capabilities=["7.0", "8.0"])
    assert "the kernels fit" in sentence(build, A100)
    assert "compiles those of compute_80" in sentence(build, H100)


def test_a_card_of_another_generation_needs_kernels_of_its_own():
    """Machine code for sm_70 does not run on 8.x, whatever is lower."""
    build = dict(WHEEL, cuda_compute_capabilities=["sm_70"])
    assert "no kernels for it" in sentence(build, A100)


def test_equal_cards_are_reported_once_and_others_each():
    assert sentence(WHEEL, A100 * 8).count("A100") == 1
    assert sentence(WHEEL, A100 + RTX_5090).count("driver 5") == 2


def test_a_driver_without_cards_is_named():
    assert "driver is loaded, but nvidia-smi lists no card" in sentence(WHEEL, "", has_driver=True)


def test_messages_of_nvidia_smi_are_no_cards():
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    assert read_cards(failed) == []
    assert read_cards(failed + H100) == [Card("NVIDIA H100 80GB HBM3", (9, 0), "550.54.15")]


def test_nvidia_smi_is_optional(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_preflight.nvidia_smi() is None


def test_nvidia_smi_is_read(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "{H100.strip()}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_preflight.nvidia_smi() == H100


def test_build_info_of_this_tensorflow_is_known():
    assert isinstance(gpu_preflight.build_info()["is_cuda_build"], bool)
