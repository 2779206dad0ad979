"""Twenty steps of training against PyTorch in float64, from the same weights on the same batches.

Momentum, decay, batch norm's momentum and its unbiased running variance, clipping and the head all
meet here: a convention that differs in one of them shows within a few steps.
"""

import numpy as np
import pytest

from nets.build import embeddings
from nets.weights.layout import arrays_of, tensors_of
from runtime.tf1 import tf
from tests.losses.tiny_heads import head_of
from tests.nets.tiny_nets import UNITS, shapes_of, small_spec
from training.graph.optimizer import apply_gradients

torch = pytest.importorskip("torch")
nets = pytest.importorskip("tests.nets.torch_nets")

STEPS, IMAGES, IDENTITIES = 20, 16, 40
RATE, MOMENTUM, DECAY, CLIP = 0.02, 0.9, 5e-4, 5.0
MARGIN, SCALE = 0.5, 64.0


def batches(spec):
    random = np.random.RandomState(11)
    shape = (STEPS, IMAGES) + spec.image_size + (3,)
    return random.randint(0, 256, shape).astype(np.uint8), random.randint(0, IDENTITIES, shape[:2])


def torch_run(module, centres_KD, images, labels):
    """The losses of a float64 run, which leaves `module` as trained."""
    module.double().train()
    module.features.weight.requires_grad = False
    centres_KD = torch.nn.Parameter(torch.from_numpy(centres_KD).double())
    backbone = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        backbone + [centres_KD], lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
    )
    losses = []
    for images_NHWC, labels_N in zip(images, labels):
        embedded_ND = module(torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).double())
        normalize = torch.nn.functional.normalize
        cosine_NK = normalize(embedded_ND) @ normalize(centres_KD).T
        true_NK = torch.nn.functional.one_hot(torch.from_numpy(labels_N), IDENTITIES).bool()
        margined_NK = torch.cos(torch.acos(cosine_NK) + MARGIN)
        logits_NK = SCALE * torch.where(true_NK, margined_NK, cosine_NK)
        loss = torch.nn.functional.cross_entropy(logits_NK, torch.from_numpy(labels_N))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(backbone, CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def our_run(spec, arrays, centres_KD, images, labels):
    """(losses, the net's arrays after the last step)."""
    with tf.Graph().as_default(), tf.Session() as session:
        images_NHWC = tf.placeholder(tf.uint8, images.shape[1:])
        labels_N = tf.placeholder(tf.int64, labels.shape[1:])
        embedded_ND = embeddings(images_NHWC, spec, training=True)
        net, backbone = tf.global_variables(), tf.trainable_variables()
        head = head_of(
            embedded_ND, labels_N, IDENTITIES, loss="arcface", margin=MARGIN, scale=SCALE
        )
        slopes = tf.gradients(head.loss, backbone + [head.centres])
        slopes[:-1], _ = tf.clip_by_global_norm(slopes[:-1], CLIP)
        pairs = list(zip(slopes, backbone + [head.centres]))
        move = apply_gradients(pairs, RATE, momentum=MOMENTUM, weight_decay=DECAY)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        session.run(tf.global_variables_initializer())
        for variable in net:
            variable.load(arrays[variable.op.name], session)
        head.centres.load(centres_KD, session)
        losses = [
            session.run([head.loss, move, updates], {images_NHWC: some, labels_N: theirs})[0]
            for some, theirs in zip(images, labels)
        ]
        return losses, {variable.op.name: session.run(variable) for variable in net}


def test_twenty_steps_follow_pytorch(monkeypatch):
    spec = small_spec(monkeypatch, "arcface_torch")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small only wait for one another
    module = nets.IResNet(UNITS, (8, 16, 32, 64), 4, 24)
    tensors = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    arrays, _ = arrays_of(tensors, spec, shapes_of(spec), "test")
    centres_KD = np.random.RandomState(2).normal(0, 0.01, (IDENTITIES, 24)).astype(np.float32)
    images, labels = batches(spec)
    ours, trained = our_run(spec, arrays, centres_KD, images, labels)
    theirs = torch_run(module, centres_KD, images, labels)
    torch.set_num_threads(threads)
    relative = np.abs(np.array(ours) / np.array(theirs) - 1)
    assert relative[:4].max() < 1e-4 and relative.max() < 1e-2, relative
    back = tensors_of(trained, spec)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            np.testing.assert_allclose(back[name], tensor.numpy(), rtol=5e-2, err_msg=name)
