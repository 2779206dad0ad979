"""The step of InsightFace_TF's train_nets.py, op for op as TensorLayer 1.7 made it: a peer to time.

Batch norm is moments and arithmetic, PReLU is relu and abs, the loss works on one-hot masks, decay
is a loss of every weight, variables are TensorFlow 1's references, and MomentumOptimizer moves
them.
N images, H W pixels, C channels, D embedding, K identities.
"""

import math

from runtime.tf1 import tf

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
WIDTHS, EPS, DECAY = (64, 128, 256, 512), 2e-5, 0.9
KEEP = 0.4  # what train_nets.py feeds as dropout_rate


def train_op(images_NHWC, labels_N, depth, size, identities, rate, momentum, weight_decay):
    """uint8 RGB [N, H, W, 3], int64 [N] -> the op that makes one step."""
    with tf.variable_scope("original", use_resource=False):
        pixels_NHWC = (tf.cast(images_NHWC, tf.float32) - 127.5) * 0.0078125
        embedded_ND = _net(pixels_NHWC, UNITS[depth], size)
        logits_NK = _arcface(embedded_ND, labels_N, identities)
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits_NK, labels=labels_N)
    )
    weights = tf.trainable_variables()
    decayed = [w for w in weights if w.op.name.endswith(("W_conv2d", "W", "gamma", "alphas"))]
    total = loss + tf.add_n([weight_decay * tf.nn.l2_loss(w) for w in decayed])
    step = tf.train.get_or_create_global_step()
    optimizer = tf.train.MomentumOptimizer(rate, momentum)
    return optimizer.apply_gradients(optimizer.compute_gradients(total), global_step=step)


def _net(x, units, size):
    x = _prelu(_norm(_conv(x, 64, 3, 1, "conv1"), "bn0"), "prelu0")
    for stage, count in enumerate(units):
        for number in range(count):
            with tf.variable_scope(f"block{stage + 1}/unit_{number + 1}"):
                x = _unit(x, WIDTHS[stage], 2 if number == 0 else 1)
    x = tf.nn.dropout(_norm(x, "E_BN1"), rate=1.0 - KEEP)
    x = tf.reshape(x, [x.shape.as_list()[0], -1])
    with tf.variable_scope("E_DenseLayer"):
        w = tf.get_variable("W", [x.shape.as_list()[1], size], initializer=_xavier())
        x = tf.matmul(x, w) + tf.get_variable("b", [size], initializer=tf.zeros_initializer())
    return _norm(x, "E_BN2")


def _unit(x, filters, stride):
    if x.shape.as_list()[-1] == filters:
        short = tf.nn.max_pool(x, [1, 1, 1, 1], [1, stride, stride, 1], "SAME")
    else:
        short = _norm(_conv(x, filters, 1, stride, "shortcut_conv"), "shortcut_bn")
    x = _conv(_norm(x, "conv1_bn1"), filters, 3, 1, "conv1")
    x = _prelu(_norm(x, "conv1_bn2"), "prelu_layer")
    return short + _norm(_conv(x, filters, 3, stride, "conv2"), "conv2_bn")


def _conv(x, filters, size, stride, name):
    with tf.variable_scope(name):
        shape = [size, size, x.shape.as_list()[-1], filters]
        kernel = tf.get_variable("W_conv2d", shape, initializer=_xavier())
        if stride > 1 and size > 1:
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        padding = "VALID" if stride > 1 and size > 1 else "SAME"
        return tf.nn.conv2d(x, kernel, [1, stride, stride, 1], padding)


def _norm(x, name):
    """BatchNormLayer: the moving averages move inside the forward pass."""
    with tf.variable_scope(name):
        shape = x.shape.as_list()[-1:]
        beta = tf.get_variable("beta", shape, initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", shape, initializer=tf.random_normal_initializer(1, 0.002))
        moving = [
            tf.get_variable(
                "moving_mean", shape, initializer=tf.zeros_initializer(), trainable=False
            ),
            tf.get_variable(
                "moving_variance", shape, initializer=tf.ones_initializer(), trainable=False
            ),
        ]
        mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        moved = [
            tf.assign_sub(old, (old - new) * (1.0 - DECAY))
            for old, new in zip(moving, (mean, variance))
        ]
        with tf.control_dependencies(moved):
            mean, variance = tf.identity(mean), tf.identity(variance)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPS)


def _prelu(x, name):
    with tf.variable_scope(name):
        shape = x.shape.as_list()[-1:]
        alphas = tf.get_variable("alphas", shape, initializer=tf.zeros_initializer())
        return tf.nn.relu(x) + tf.multiply(alphas, (x - tf.abs(x))) * 0.5


def _arcface(embedded_ND, labels_N, identities, scale=64.0, margin=0.5):
    """arcface_loss of losses/face_losses.py there: what it calls loss are logits."""
    cos_m, sin_m = math.cos(margin), math.sin(margin)
    shape = [embedded_ND.shape.as_list()[1], identities]
    weights = tf.get_variable("embedding_weights", shape, initializer=_xavier())
    unit_ND = embedded_ND / tf.norm(embedded_ND, axis=1, keepdims=True)
    cos_NK = tf.matmul(unit_ND, weights / tf.norm(weights, axis=0, keepdims=True))
    sin_NK = tf.sqrt(1.0 - tf.square(cos_NK))
    turned_NK = scale * (cos_NK * cos_m - sin_NK * sin_m)
    beyond = tf.cast(tf.nn.relu(cos_NK - math.cos(math.pi - margin)), dtype=tf.bool)
    turned_NK = tf.where(beyond, turned_NK, scale * (cos_NK - sin_m * margin))
    mask_NK = tf.one_hot(labels_N, depth=identities)
    return scale * cos_NK * (1.0 - mask_NK) + turned_NK * mask_NK


def _xavier():
    return tf.glorot_normal_initializer()
