import os

import cv2
import numpy as np
import pytest

from data import mx2tfrecords
from data.formats.manifest import read_manifest
from data.formats.tfrecord import example_bytes, read_frames, read_shard
from data.pipeline.batches import (
    ImageSettings,
    StreamSettings,
    TrainingBatches,
    training_batches,
    training_labels,
)
from data.pipeline.recipes import Augmentation
from runtime.tf1 import tf
from tests.data.tiny_records import write_records
from tests.data.tiny_shards import SIZE, picture, take, write_set, write_shard

COUNTS = (7, 5, 9, 4, 6)  # 31 images, no two shards alike
IMAGES = sum(COUNTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("shards"), COUNTS)


IMAGES_OF = {"augment": "none", "size": (SIZE, SIZE)}


def images_of(**settings):
    return ImageSettings(**dict(IMAGES_OF, **settings))


def batches(path, count=1, batch_size=4, seed=3, **others):
    parts = []
    for kind, start in ((StreamSettings, {"buffer_size": 8}), (ImageSettings, IMAGES_OF)):
        given = {name: others.pop(name) for name in kind._fields if name in others}
        parts.append(dict(start, **given))
    stream, images = StreamSettings(path, seed, **parts[0]), ImageSettings(**parts[1])
    return take(lambda: training_batches(stream, batch_size, images, **others), count)


def explanation(error, path, batch_size):
    """What is said of an error in the batches above."""
    stream = TrainingBatches(StreamSettings(path, 3, 8), batch_size, images_of())
    return stream.explain(error)


def labels(path, images, **others):
    """The labels of the first `images` of the stream (batches of one image)."""
    return [int(batch[1][0]) for batch in batches(path, images, batch_size=1, **others)]


def test_batches_have_a_static_shape_and_the_right_types(folder):
    with tf.Graph().as_default():
        dataset = training_batches(StreamSettings(folder, 0), 4, images_of())
        images, label_N = tf.data.make_initializable_iterator(dataset).get_next()
    assert images.shape.as_list() == [4, SIZE, SIZE, 3] and label_N.shape.as_list() == [4]
    assert images.dtype == tf.uint8 and label_N.dtype == tf.int64


def test_each_epoch_holds_every_image_once_and_the_next_follows_without_a_seam(folder):
    stream = labels(folder, 3 * IMAGES)
    epochs = [stream[i * IMAGES : (i + 1) * IMAGES] for i in range(3)]
    assert all(sorted(epoch) == list(range(IMAGES)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_order_is_a_function_of_seed_and_epoch(folder):
    first = labels(folder, 12)
    assert labels(folder, 12) == first != labels(folder, 12, seed=4)


def test_the_order_does_not_depend_on_threads(folder):
    one, three = (batches(folder, 9, threads=threads, augment="strong") for threads in (1, 3))
    for (images, label_N), (other_images, other_label_N) in zip(one, three):
        assert (label_N == other_label_N).all() and (images == other_images).all()


@pytest.mark.parametrize("start,augment", [(4, "flip"), (28, "strong"), (68, "flip")])
def test_a_stream_from_the_middle_equals_the_unbroken_one(folder, start, augment):
    whole = batches(folder, start // 4 + 2, augment=augment)[start // 4 :]
    late = batches(folder, 2, augment=augment, start_image=start)
    for (images, label_N), (late_images, late_label_N) in zip(whole, late):
        assert (label_N == late_label_N).all() and (images == late_images).all()


@pytest.mark.parametrize("buffer_size,start", [(1, 11), (3, IMAGES + 6), (1000, 1)])
def test_skipping_holds_for_buffers_smaller_and_larger_than_a_shard(folder, buffer_size, start):
    stream = labels(folder, start + 9, buffer_size=buffer_size)
    assert labels(folder, 9, buffer_size=buffer_size, start_image=start) == stream[start:]


def test_skipped_shards_are_not_even_opened(folder, tmp_path):
    """Records that are passed over may be damaged: whole groups of shards are left closed."""
    path = write_set(tmp_path, COUNTS)
    order = labels(path, IMAGES, buffer_size=1)
    first = next(i for i in range(len(COUNTS)) if order[0] < sum(COUNTS[: i + 1]))
    labels(path, 1)  # counted once, before the damage
    name = os.path.join(path, f"train-{first:05d}.tfrecords")
    start = COUNTS[first]
    with tf.Graph().as_default():
        dataset = training_batches(StreamSettings(path, 3, 1), 1, images_of(), start)
        iterator = tf.data.make_initializable_iterator(dataset)
        element = iterator.get_next()
        with tf.Session() as session:
            os.remove(name)
            session.run(iterator.initializer)
            rest = [int(session.run(element)[1][0]) for _ in range(IMAGES - start)]
    assert rest == order[start:]


def test_hosts_share_each_epoch_without_overlap(folder):
    shares = []
    for host in range(3):
        low, high = IMAGES * host // 3, IMAGES * (host + 1) // 3
        stream = labels(folder, 2 * (high - low), host=host, hosts=3)
        shares.append((stream[: high - low], stream[high - low :]))
    for epoch in range(2):
        together = [label for share in shares for label in share[epoch]]
        assert sorted(together) == list(range(IMAGES))


def test_a_host_resumes_within_its_share(folder):
    stream = labels(folder, 20, host=1, hosts=3)
    assert labels(folder, 9, host=1, hosts=3, start_image=11) == stream[11:]


def test_more_hosts_than_shards_share_each_epoch_without_overlap(folder):
    hosts = len(COUNTS) + 1
    sizes = [IMAGES * (host + 1) // hosts - IMAGES * host // hosts for host in range(hosts)]
    shares = [labels(folder, size, host=h, hosts=hosts) for h, size in enumerate(sizes)]
    assert sorted(label for share in shares for label in share) == list(range(IMAGES))


def test_labels_alone_come_in_the_order_of_the_batches(folder):
    whole = np.concatenate([batch[1] for batch in batches(folder, 11, host=1, hosts=2)])
    alone = take(lambda: training_labels(StreamSettings(folder, 3, 8, 1, 2), 4, start_image=8), 9)
    assert (np.concatenate(alone) == whole[8:]).all()


def test_more_hosts_than_images_is_refused(folder):
    with pytest.raises(ValueError, match="too few for 99 hosts"):
        training_batches(StreamSettings(folder, 0, host=3, hosts=99), 1, images_of())


def test_epochs_ends_the_stream_and_leaves_the_incomplete_batch(folder):
    assert len(batches(folder, 99, batch_size=4, epochs=2)) == 2 * IMAGES // 4
    assert len(batches(folder, 99, batch_size=4, epochs=2, start_image=40)) == (62 - 40) // 4


def test_labels_stay_with_their_images(folder):
    for images, label_N in batches(folder, 8, augment="none"):
        for image, label in zip(images, label_N):
            wanted = cv2.imdecode(np.frombuffer(picture(label), np.uint8), cv2.IMREAD_COLOR)
            assert np.abs(image.astype(int) - wanted[..., ::-1]).max() <= 1


def photograph(number, size=112, quality=95):
    """Smooth shapes under noise: every coefficient of the JPEG is in use."""
    random = np.random.RandomState(number)
    coarse = random.randint(0, 256, (14, 14, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(smooth + random.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def test_pixels_are_those_of_opencv(tmp_path):
    path = write_set(tmp_path, (6,), image=photograph)
    images, label_N = batches(path, batch_size=6, size=(112, 112))[0]
    for image, label in zip(images, label_N):
        wanted = cv2.imdecode(np.frombuffer(photograph(label), np.uint8), cv2.IMREAD_COLOR)
        difference = np.abs(image.astype(int) - wanted[..., ::-1])
        assert difference.max() <= 1 and difference.mean() < 0.01


def test_png_gray_and_progressive_jpegs_become_rgb(tmp_path):
    pixels = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    coded = [
        cv2.imencode(".png", cv2.merge([pixels, pixels // 2, pixels // 3]))[1],
        cv2.imencode(".jpg", pixels)[1],
        cv2.imencode(".jpg", cv2.merge([pixels] * 3), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1],
    ]
    path = write_set(tmp_path, (3,), image=lambda i: coded[i].tobytes())
    images, label_N = batches(path, batch_size=3)[0]
    for image, label in zip(images, label_N):
        wanted = cv2.imdecode(coded[label], cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(image.astype(int) - wanted).max() <= 1


def test_progressive_gray_and_png_records_of_a_rec_train_as_they_are(tmp_path):
    """Converted with their bytes as they were, and decoded as OpenCV decodes them."""
    noise = np.random.RandomState(5).randint(0, 256, (2 * SIZE, 2 * SIZE, 3)).astype(np.uint8)
    colour = cv2.resize(noise[: SIZE // 2, : SIZE // 2], (SIZE, SIZE))
    gray = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    coded = [
        cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
        cv2.imencode(".jpg", gray)[1].tobytes(),
        cv2.imencode(".png", colour)[1].tobytes(),
        cv2.imencode(".png", gray)[1].tobytes(),
        cv2.imencode(".jpg", colour)[1].tobytes(),
    ]
    assert b"\xff\xc2" in coded[0] and b"\xff\xc0" in coded[4]  # frames: progressive, baseline
    rec, _ = write_records(tmp_path, list(enumerate(coded)))
    out = str(tmp_path / "shards")
    mx2tfrecords.main(["--bin_path", rec, "--tfrecords_file_path", out, "--decode"])
    found = [item for name, _ in read_manifest(out).shards for item in read_shard(f"{out}/{name}")]
    assert sorted(found) == list(enumerate(coded))
    images, label_N = batches(out, batch_size=5)[0]
    assert sorted(label_N) == [0, 1, 2, 3, 4]
    for image, label in zip(images, label_N):
        wanted = cv2.imdecode(np.frombuffer(coded[label], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(image.astype(int) - wanted).max() <= 1


def test_raw_pixels_of_the_original_are_reordered_to_rgb(tmp_path):
    def raw(number):
        return np.random.RandomState(number).randint(0, 256, SIZE * SIZE * 3).astype("u1").tobytes()

    path = tmp_path / "tran.tfrecords"
    write_shard(path, [example_bytes(i, raw(i)) for i in range(5)])
    images, label_N = batches(str(path), batch_size=5)[0]
    for image, label in zip(images, label_N):
        assert image[..., ::-1].tobytes() == raw(label)


def test_another_image_size_is_refused_before_the_first_batch(folder):
    with pytest.raises(ValueError, match="images are 16x16, but --image_size is 112x112"):
        training_batches(StreamSettings(folder, 0), 4)


def damaged_set(folder):
    """12 records in one shard; record 5 is no image, record 8 has another size, 9 no label."""
    good = [example_bytes(i, picture(i)) for i in range(12)]
    good[5] = example_bytes(5, b"\xff\xd8\xff this is no JPEG")
    good[8] = example_bytes(8, picture(8, size=24))
    good[9] = b"\x0a\x03\x01\x02"
    for name, count in (("a.tfrecords", 6), ("b.tfrecords", 6)):
        write_shard(os.path.join(str(folder), name), good[:count])
        good = good[count:]
    return manifest_of(str(folder), 12)


def manifest_of(folder, images):
    """dataset.json by hand: counting would stop at the record without a label."""
    from data.formats.manifest import Manifest, write_manifest

    shards = (("a.tfrecords", images // 2), ("b.tfrecords", images - images // 2))
    write_manifest(folder, Manifest(images, images, shards))
    return folder


def test_a_damaged_record_stops_the_run_and_is_named(tmp_path):
    path = damaged_set(tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        batches(path, 4, batch_size=3)
    sentence = explanation(caught.value, path, 3)
    named = [("a", 5), ("b", 2), ("b", 3)]
    assert any(f"{path}/{name}.tfrecords: record {number} " in sentence for name, number in named)


def flip_bit(path, at):
    with open(path, "r+b") as stream:
        stream.seek(at)
        (byte,) = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte ^ 0x10]))


def test_a_flipped_bit_is_named_in_a_graph_that_has_a_seed_of_its_own(tmp_path):
    """Dataset.shuffle draws from the graph's seed too, and a run sets one."""
    path = write_set(tmp_path, (12, 12))
    shard = os.path.join(path, "train-00001.tfrecords")
    read_manifest(path)  # counted once, before the damage
    offsets = [at for at, _ in read_frames(shard)]
    flip_bit(shard, offsets[5] + 40)
    for seed in range(4):
        with tf.Graph().as_default():
            tf.set_random_seed(seed)
            stream = TrainingBatches(StreamSettings(path, seed, 100), 4, images_of())
            element = tf.data.make_one_shot_iterator(stream.dataset()).get_next()
            with tf.Session() as session, pytest.raises(tf.errors.InvalidArgumentError) as caught:
                for _ in range(6):
                    session.run(element)
        assert f"{shard}: record 5 cannot be trained on" in stream.explain(caught.value)


@pytest.mark.parametrize("place", [3, 40], ids=["in its length", "in its image"])
@pytest.mark.parametrize("record", [0, 5, 11])
def test_a_flipped_bit_costs_one_record_with_skip(tmp_path, record, place):
    path = write_set(tmp_path, (4, 12, 4))
    shard = os.path.join(path, "train-00001.tfrecords")
    read_manifest(path)
    flip_bit(shard, [at for at, _ in read_frames(shard)][record] + place)
    found = batches(path, 5, on_error="skip")
    names = [line for batch in found for line in batch[2].decode().splitlines()]
    assert names == [f"{shard}: record {record}"]
    seen = {label for batch in found for label in batch[1].tolist()}
    assert seen == set(range(20)) - {4 + record}


def test_other_errors_are_not_explained(folder):
    error = tf.errors.InvalidArgumentError(None, None, "something else")
    assert explanation(error, folder, 3) is None


def test_skipped_records_are_named_and_their_places_taken(tmp_path):
    path = damaged_set(tmp_path)
    found = batches(path, 4, batch_size=3, on_error="skip")
    names = [line for batch in found for line in batch[2].decode().split("\n") if line]
    wanted = [("a", 5), ("b", 2), ("b", 3)]
    assert sorted(names) == [f"{path}/{name}.tfrecords: record {i}" for name, i in wanted]
    for images, label_N, _ in found:
        assert not set(label_N) & {5, 8, 9}
        for image, label in zip(images, label_N):
            wanted = cv2.imdecode(np.frombuffer(picture(label), np.uint8), cv2.IMREAD_COLOR)
            assert np.abs(image.astype(int) - wanted[..., ::-1]).max() <= 1


def test_skipping_moves_no_other_record(tmp_path, folder):
    path = damaged_set(tmp_path)
    whole = write_set(tmp_path / "whole", (6, 6)) if (tmp_path / "whole").mkdir() is None else None
    for batch, good in zip(
        batches(path, 8, batch_size=3, on_error="skip"), batches(whole, 8, batch_size=3)
    ):
        kept = [label not in (5, 8, 9) for label in good[1]]
        assert (batch[1][kept] == good[1][kept]).all()


def test_overwritten_bytes_cost_one_record_and_nothing_else(tmp_path):
    path = write_set(tmp_path, (6, 6), image=lambda i: picture(i))
    batches(path)  # counted while whole
    os.rename(f"{path}/train-00000.tfrecords", f"{path}/a.tfrecords")
    os.rename(f"{path}/train-00001.tfrecords", f"{path}/b.tfrecords")
    manifest_of(path, 12)
    with open(f"{path}/a.tfrecords", "r+b") as stream:
        stream.seek(os.path.getsize(f"{path}/a.tfrecords") // 2)
        stream.write(b"\0\0\0\0")
    found = batches(path, 4, batch_size=3, on_error="skip")
    names = [line for batch in found for line in batch[2].decode().split("\n") if line]
    assert names == [f"{path}/a.tfrecords: record 3"]
    assert {int(label) for batch in found for label in batch[1]} == set(range(12)) - {3}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_shard_that_disappears_is_named_and_nothing_hangs(tmp_path, on_error):
    path = write_set(tmp_path, COUNTS)
    with tf.Graph().as_default():
        dataset = training_batches(
            StreamSettings(path, 3), 10, images_of(augment="flip", on_error=on_error)
        )
        iterator = tf.data.make_initializable_iterator(dataset)
        element = iterator.get_next()
        os.remove(f"{path}/train-00002.tfrecords")
        with tf.Session() as session:
            session.run(iterator.initializer)
            if on_error == "skip":
                listed = b"".join(session.run(element)[2] for _ in range(4)).decode()
                assert "train-00002.tfrecords: record 8" in listed and "-00001" not in listed
            else:
                with pytest.raises(tf.errors.InvalidArgumentError, match="training stream"):
                    for _ in range(4):
                        session.run(element)


def test_a_batch_without_one_good_image_stops_even_when_skipping(tmp_path):
    for name in ("a.tfrecords", "b.tfrecords"):
        write_shard(tmp_path / name, [b"\x0a\x03\x01\x02"] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not one image of a whole batch"):
        batches(manifest_of(str(tmp_path), 4), batch_size=4, on_error="skip")


def test_the_last_batch_of_the_last_epoch_fails_aloud(tmp_path):
    write_shard(tmp_path / "a.tfrecords", [b"\x0a\x03\x01\x02"] * 2)
    write_shard(tmp_path / "b.tfrecords", [b"\x0a\x03\x01\x02"] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches(manifest_of(str(tmp_path), 4), 9, batch_size=4, epochs=1, buffer_size=1)


def test_a_label_beyond_the_identities_is_damage(tmp_path):
    path = write_set(tmp_path, (4,))
    os.rename(f"{path}/train-00000.tfrecords", f"{path}/a.tfrecords")
    write_shard(tmp_path / "b.tfrecords", [example_bytes(99, picture(1))] * 4)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        batches(manifest_of(path, 8), 2, batch_size=4)
    assert "b.tfrecords: record" in explanation(caught.value, path, 4)


def test_an_unknown_recipe_or_error_policy_is_refused(folder):
    with pytest.raises(ValueError, match="--augment wild is not known"):
        batches(folder, augment="wild")
    with pytest.raises(ValueError, match="--on_error maybe is not known"):
        batches(folder, on_error="maybe")


def test_a_session_at_a_server_reads_as_well(folder):
    """A run on several hosts has its session at its own server."""
    server = tf.train.Server.create_local_server()
    with tf.Graph().as_default(), tf.Session(server.target) as session:
        dataset = training_batches(StreamSettings(folder, 3, 8), 4, images_of(augment="flip"))
        iterator = tf.data.make_initializable_iterator(dataset)
        element = iterator.get_next()
        session.run(iterator.initializer)
        found = session.run(element)[1].tolist()
    assert found == batches(folder, augment="flip")[0][1].tolist()


def test_flip_mirrors_about_half_of_the_images(folder):
    plain, flipped = (
        np.concatenate([batch[0] for batch in batches(folder, 50, augment=augment)])
        for augment in ("none", Augmentation(flip=0.5))
    )
    mirrored = [(a[:, ::-1] == b).all() for a, b in zip(plain, flipped)]
    kept = [(a == b).all() for a, b in zip(plain, flipped)]
    assert all(m != k for m, k in zip(mirrored, kept))
    assert 70 <= sum(mirrored) <= 130  # of 200: 4 standard deviations are 28
