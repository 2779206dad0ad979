"""The one door to TensorFlow: `tf` is the graph-and-session API of both 1.15 and 2.x.

Importing it switches version 2 behaviour off and resource variables on, so that the same code
builds the same graph, with the same variable names, on both.
"""

import logging
import os
import warnings

os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "2"
)  # TensorFlow greets in C++ before any Python can quieten it

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # 1.15 on NumPy >= 1.17 warns a dozen times while importing
    import tensorflow

TF2 = tensorflow.__version__.startswith("2.")
VERSION = tensorflow.__version__

tf = tensorflow.compat.v1
tf.disable_v2_behavior()
tf.enable_resource_variables()
logging.getLogger("tensorflow").setLevel(logging.ERROR)
