"""uint8 images and a spec -> embeddings: the one entrance to every net here.

Letters: N images, H W pixels, D embedding.
"""

from typing import Callable, Dict, List

from nets.L_Resnet_E_IR import resnet_e_ir
from nets.layers import INFERENCE, LayerContext, NetOptions
from nets.lineages import NetSpec
from nets.mobilefacenet import mobilefacenet
from nets.resnet_v1 import resnet_v1
from nets.vgg import vgg
from runtime.tf1 import tf

# Collections: what scale_pixels takes and returns. training/preflight compares the pixels of
# training and evaluation by them.
IMAGES, PIXELS = "images", "pixels"
BUILDERS: Dict[str, Callable[[tf.Tensor, LayerContext], tf.Tensor]] = {
    "ir": resnet_e_ir,
    "mobilefacenet": mobilefacenet,
    "vgg": vgg,
    "resnet_v1": resnet_v1,
}


def embeddings(
    images_NHWC: tf.Tensor, spec: NetSpec, training: bool, options: NetOptions = INFERENCE
) -> tf.Tensor:
    """uint8 RGB [N, H, W, 3] -> float32 [N, D], of length 1 only where the lineage normalises.

    When training, batch norms add their updates to tf.GraphKeys.UPDATE_OPS, which the caller must
    run."""
    context = LayerContext(spec, training, options)
    x_ND = BUILDERS[spec.row.family](scale_pixels(images_NHWC, spec), context)
    return tf.nn.l2_normalize(x_ND, axis=1) if spec.row.l2 else x_ND


def scale_pixels(images_NHWC: tf.Tensor, spec: NetSpec) -> tf.Tensor:
    """uint8 RGB [N, H, W, 3] -> float32 in the lineage's channel order and scale."""
    height, width = spec.image_size
    images_NHWC.set_shape([None, height, width, 3])
    raw_NHWC = tf.reverse(images_NHWC, [3]) if spec.row.pixels == "BGR" else images_NHWC
    mean = list(spec.row.mean) * (3 // len(spec.row.mean))
    pixels_NHWC = (tf.cast(raw_NHWC, tf.float32) - tf.constant(mean)) / spec.row.divisor
    tf.add_to_collection(IMAGES, images_NHWC)
    tf.add_to_collection(PIXELS, pixels_NHWC)
    return pixels_NHWC


def variable_shapes(spec: NetSpec) -> Dict[str, List[int]]:
    """{name: shape} of the variables of an inference net, in the order of their creation."""
    with tf.Graph().as_default():
        embeddings(tf.placeholder(tf.uint8, [1] + list(spec.image_size) + [3]), spec, False)
        return {v.op.name: v.shape.as_list() for v in tf.global_variables()}
