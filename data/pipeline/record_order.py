"""Which record of which shard comes when: the order of an epoch, a host's share, a place to start.

S shards in the data set, M of them in this host's share, in G groups. Records stay bytes here.
"""

from data.pipeline.stateless_random import hashed, shuffle_seed
from runtime.tf1 import tf

READ_BYTES = 1 << 20  # of a shard at a time
RECORD_BITS = 40  # a record is named by shard << 40 | its number in the shard
FOREVER = 1 << 62


class RecordStream:
    """The endless order of a data set's records. Positions count this host's images."""

    def __init__(self, names, manifest, seed, buffer_size, host=0, hosts=1):
        self.names, self.counts = names, [count for _, count in manifest.shards]
        self.seed, self.buffer_size = int(seed), buffer_size
        total = manifest.images
        self.low, self.high = total * host // hosts, total * (host + 1) // hosts
        self.images = self.high - self.low  # of this host in each epoch
        if total < hosts:
            raise ValueError(
                f"{total} images are too few for {hosts} hosts; one of them would have none."
            )

    def records(self, first):
        """Dataset of (record name, Example bytes), both scalars, from position `first` on."""
        epoch, skip = divmod(first, self.images)
        numbers = tf.data.Dataset.range(epoch, FOREVER)
        return numbers.flat_map(
            lambda e: self.epoch(e, tf.where(tf.equal(e, epoch), _int64(skip), _int64(0)))
        )

    def epoch(self, epoch, skip):
        """One epoch's records but the first `skip`.

        Shards in an order hashed from (seed, epoch); this host's stretch of it; as many neighbours
        at a time as fill the shuffle buffer are shuffled among themselves. So whole groups can be
        skipped by their counts, and a group depends on nothing before it."""
        order_S = tf.argsort(
            hashed(self.seed, 2, epoch, tf.range(len(self.counts), dtype=tf.int64))
        )
        counts_S = tf.gather(tf.constant(self.counts, tf.int64), order_S)
        before_S = tf.cumsum(counts_S, exclusive=True)
        start_S = tf.clip_by_value(self.low - before_S, 0, counts_S)
        length_S = tf.clip_by_value(self.high - before_S, 0, counts_S) - start_S
        mine_S = length_S > 0
        shard_M, start_M, length_M = (
            tf.boolean_mask(x, mine_S) for x in (tf.cast(order_S, tf.int64), start_S, length_S)
        )
        full_M = tf.cumsum(length_M, exclusive=True) // self.buffer_size
        group_M = tf.unique(full_M).idx  # M of this host's shards -> G groups, numbered from 0
        length_G = tf.segment_sum(length_M, group_M)
        skip_G = tf.clip_by_value(skip - tf.cumsum(length_G, exclusive=True), 0, length_G)
        left_G = tf.where(skip_G < length_G)[:, 0]

        def group(g):
            inside = tf.equal(tf.cast(group_M, tf.int64), g)
            shards = tf.data.Dataset.from_tensor_slices(
                tuple(tf.boolean_mask(x, inside) for x in (shard_M, start_M, length_M))
            )
            records = shards.flat_map(self.shard)
            seed = shuffle_seed(self.seed, 3, epoch, g)
            return records.shuffle(self.buffer_size, seed=seed).skip(tf.gather(skip_G, g))

        return tf.data.Dataset.from_tensor_slices(left_G).flat_map(group)

    def shard(self, shard, start, length):
        """Records start ... start + length of one shard.

        TensorFlow leaves a file at its first bad checksum; what is lost of it comes as empty
        records, so that every later record keeps its position."""
        name = tf.gather(tf.constant(self.names), shard)
        readable = tf.data.Dataset.from_tensors(name).map(_opened)
        readable = readable.apply(tf.data.experimental.ignore_errors())
        examples = readable.flat_map(lambda path: tf.data.TFRecordDataset(path, None, READ_BYTES))
        examples = examples.apply(tf.data.experimental.ignore_errors())
        lost = tf.data.Dataset.from_tensors(tf.constant(b"")).repeat()
        numbered = examples.concatenate(lost).enumerate(start=shard * (1 << RECORD_BITS))
        return numbered.skip(start).take(length)


def _opened(path):
    """The path, or an error if its first record cannot be read. A file that cannot be opened must
    never reach ignore_errors: TensorFlow would try to open it for ever."""
    first = tf.data.experimental.get_single_element(tf.data.TFRecordDataset(path).take(1))
    with tf.control_dependencies([first]):
        return tf.identity(path)


def shard_and_number(record):
    """A record's name (Python int) -> the index of its shard, its number in it."""
    return record >> RECORD_BITS, record & ((1 << RECORD_BITS) - 1)


def _int64(value):
    return tf.constant(value, tf.int64)
