"""uint8 images and a spec -> embeddings: the one entrance to every net here.

Letters: N images, H W pixels, D embedding.
"""

from nets.L_Resnet_E_IR import resnet_e_ir
from nets.layers import LayerContext
from nets.mobilefacenet import mobilefacenet
from nets.resnet_v1 import resnet_v1
from nets.vgg import vgg
from runtime.tf1 import tf

IMAGES, PIXELS = "images", "pixels"  # collections: what scale_pixels was given, what it made
BUILDERS = {"ir": resnet_e_ir, "mobilefacenet": mobilefacenet, "vgg": vgg, "resnet_v1": resnet_v1}


def embeddings(
    images_NHWC,
    spec,
    training,
    dropout=None,
    compute_dtype=tf.float32,
    mean_over_ranks=None,
    ranks=1,
    dropout_seed=None,
    wrap_unit=None,
):
    """uint8 RGB [N, H, W, 3] -> float32 [N, D], of length 1 only where the lineage has it so.

    dropout: the share dropped, default the lineage's. compute_dtype: of convolutions. When
    training, batch norms add their updates to tf.GraphKeys.UPDATE_OPS, which the caller must run;
    mean_over_ranks makes their statistics those of all `ranks`. wrap_unit: see resnet_e_ir."""
    rules = LayerContext(spec.row, training, compute_dtype, mean_over_ranks, ranks)
    share = spec.row.dropout if dropout is None else dropout
    pixels_NHWC = scale_pixels(images_NHWC, spec)
    build = BUILDERS[spec.row.family]
    x_ND = build(pixels_NHWC, spec, rules, share, seed=dropout_seed, wrap_unit=wrap_unit)
    return tf.nn.l2_normalize(x_ND, axis=1) if spec.row.l2 else x_ND


def scale_pixels(images_NHWC, spec):
    """uint8 RGB [N, H, W, 3] -> float32 in the lineage's channel order and scale."""
    height, width = spec.image_size
    images_NHWC.set_shape([None, height, width, 3])
    raw_NHWC = tf.reverse(images_NHWC, [3]) if spec.row.pixels == "BGR" else images_NHWC
    mean = list(spec.row.mean) * (3 // len(spec.row.mean))
    pixels_NHWC = (tf.cast(raw_NHWC, tf.float32) - tf.constant(mean)) / spec.row.divisor
    tf.add_to_collection(
        IMAGES, images_NHWC
    )  # training/preflight/checks.py compares what towers make
    tf.add_to_collection(PIXELS, pixels_NHWC)
    return pixels_NHWC


def variable_shapes(spec):
    """{name: shape} of the variables of a net that embeds, in the order in which it makes them."""
    with tf.Graph().as_default():
        embeddings(tf.placeholder(tf.uint8, [1] + list(spec.image_size) + [3]), spec, False)
        return {v.op.name: v.shape.as_list() for v in tf.global_variables()}
