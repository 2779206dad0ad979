import pytest

from runtime.session import session_config
from runtime.tf1 import tf


def test_a_cpu_session_sees_no_gpu():
    assert session_config("cpu").device_count["GPU"] == 0


def test_a_gpu_that_is_not_there_is_refused():
    if tf.config.experimental.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="sees no GPU on this machine"):
        session_config("gpu")
