"""A checkpoint -> answers about images, verb by verb.

    python infer.py embed --ckpt_file output/r50/ckpt/InsightFace_iter_1000.ckpt \\
        --images aligned/ --output embeddings.npy
"""

import dataclasses
import os
import sys

import cv2
import numpy as np
from tqdm import tqdm

from checkpoint.reader import spec_of
from inference.embedder import Embedder, embed_images, prefetch
from runtime.cli import run
from runtime.flags import flag, parse_flags

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    ckpt_file: str = flag(dataclasses.MISSING, "the checkpoint's prefix, up to .ckpt")
    images: str = flag(
        dataclasses.MISSING, "a directory of aligned images, or an .npy of uint8 RGB [N, H, W, 3]"
    )
    output: str = flag(dataclasses.MISSING, "the .npy to write: float32 [N, D]")
    flip: bool = flag(False, "add the mirrored image's embedding, as Accuracy-Flip does")
    batch_size: int = flag(64, "images in one run of the net", low=1)
    device: str = flag("cpu", "where to run", choices=("cpu", "gpu"))


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] not in VERBS:
        asked = f"{argv[0]} is not a verb of infer.py" if argv else "infer.py needs a verb"
        if argv and argv[0] in ("-h", "--help"):
            print(f"{__doc__}\nVerbs: {', '.join(VERBS)}. Each has its own --help.")
            return 0
        raise ValueError(f"{asked}; choose one of {', '.join(VERBS)}.")
    config_class, verb = VERBS[argv[0]]
    return verb(parse_flags(config_class, argv[1:], verb.__doc__.splitlines()[0]))


def embed(config):
    """Images -> one embedding each, in the order of their names (or of the .npy's rows).

    Channel order and scale are the lineage's own; the embeddings are not normalised unless the
    lineage does so."""
    if not config.output.endswith(".npy"):
        raise ValueError(f"--output {config.output} must end in .npy.")
    if not os.path.isdir(os.path.dirname(os.path.abspath(config.output))):
        raise ValueError(f"--output {config.output} lies in no directory; make it first.")
    read, count = source(config.images, spec_of(config.ckpt_file).image_size)
    starts = range(0, count, config.batch_size)
    with Embedder(config.ckpt_file, config.device, config.batch_size) as embedder:
        batches = prefetch(read, [slice(s, min(s + config.batch_size, count)) for s in starts])
        with tqdm(total=count, unit="image", disable=None) as bar:
            plain_ND, mirrored_ND = embed_images(
                embedder.embed_batch, batches, count, config.batch_size, bar.update
            )
    embeddings_ND = plain_ND + mirrored_ND if config.flip else plain_ND
    with open(config.output, "wb") as stream:
        np.save(stream, embeddings_ND)
    print(f"{config.output}: {count} embeddings of {embeddings_ND.shape[1]} numbers.")


def source(path, image_size):
    """(slice -> uint8 RGB [B, H, W, 3], how many images there are)."""
    if os.path.isdir(path):
        return _directory(path, image_size)
    if path.endswith(".npy"):
        return _array(path, image_size)
    raise ValueError(f"--images {path} is neither a directory nor an .npy file.")


def _directory(path, image_size):
    names = sorted(os.listdir(path))
    if not names:
        raise ValueError(f"--images {path} is empty; put aligned images there.")
    other = [name for name in names if not name.lower().endswith(IMAGE_ENDINGS)]
    if other:
        raise ValueError(
            f"{os.path.join(path, other[0])} is not an image ({', '.join(IMAGE_ENDINGS)}); "
            "move it out of --images, whose every file is embedded."
        )

    def read(part):
        return np.stack([_image(os.path.join(path, name), image_size) for name in names[part]])

    return read, len(names)


def _image(path, image_size):
    with open(path, "rb") as stream:
        content = np.frombuffer(stream.read(), np.uint8)
    image_HWC = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image_HWC is None:
        raise ValueError(f"{path} cannot be decoded as an image; remove or replace it.")
    if image_HWC.shape[:2] != tuple(image_size):
        raise ValueError(
            f"{path} is {image_HWC.shape[0]}x{image_HWC.shape[1]} pixels (height x width), but the "
            f"net takes {image_size[0]}x{image_size[1]}; align or resize it first."
        )
    return image_HWC[:, :, ::-1]


def _array(path, image_size):
    with open(path, "rb"):  # a missing file is said as the system says it
        pass
    try:
        images_NHWC = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a whole .npy of numbers ({error}).") from None
    wanted = f"uint8 RGB [N, {image_size[0]}, {image_size[1]}, 3]"
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != tuple(image_size) + (3,):
        shape = ", ".join(map(str, images_NHWC.shape))
        raise ValueError(
            f"{path} holds {images_NHWC.dtype} [{shape}], but the net takes {wanted}; convert it."
        )
    if not len(images_NHWC):
        raise ValueError(f"{path} holds no images.")
    return lambda part: np.asarray(images_NHWC[part]), len(images_NHWC)


VERBS = {"embed": (EmbedConfig, embed)}


if __name__ == "__main__":
    run(main)
