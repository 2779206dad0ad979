"""A device's name -> the session's ConfigProto; the only room that knows how devices differ."""

from runtime.tf1 import tf

DEVICES = ("cpu", "gpu")


def session_config(device="cpu", log_device_mapping=False):
    """ConfigProto for `--device`; a GPU that is not there ends here, before a graph is built."""
    if device not in DEVICES:
        raise ValueError(
            f"--device {device} is not known here; choose one of {', '.join(DEVICES)}."
        )
    if device == "cpu":
        return tf.ConfigProto(device_count={"GPU": 0}, log_device_placement=log_device_mapping)
    if not tf.config.experimental.list_physical_devices("GPU"):
        raise ValueError(
            "--device gpu: TensorFlow sees no GPU on this machine; install its CUDA libraries "
            "(pip install 'tensorflow[and-cuda]') or pass --device cpu."
        )
    config = tf.ConfigProto(allow_soft_placement=True, log_device_placement=log_device_mapping)
    config.gpu_options.allow_growth = True
    return config
