"""What evaluation costs, against its limits and the peers' way of doing it, in one run each.

python benchmarks/evaluation.py roc       the ROC of 6,000 pairs against a loop over thresholds
python benchmarks/evaluation.py validate  12,000 images: time and memory around the forward pass
python benchmarks/evaluation.py ijbc      IJB-C at its real size, of synthetic embeddings
python benchmarks/evaluation.py numbers   thresholds, intervals, calibration, quality and groups of
                                          1,000,000 pairs
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import resource  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402

import verification  # noqa: E402
from evaluation import (  # noqa: E402
    calibration,
    error_rates,
    groups,
    identity_intervals,
    ijb,
    ijb_metadata,
    quality,
)

PAIRS, FOLDS, DIMENSIONS = 6000, 10, 512
IJBC_IMAGES, IJBC_TEMPLATES, IJBC_GALLERY = 469375, 23124, 3531
IJBC_PAIRS, IJBC_GENUINE = 15658489, 19557
MILLION, PEOPLE = 1000000, 20000


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best_of(work, times=7):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def threshold_loop(distances_P, issame_P, folds):
    """As arcface_torch does it: every threshold of every fold by itself, on train and on test."""
    fold_P = verification.fold_of_pair(len(issame_P), folds)
    for fold in range(folds):
        for part in (fold_P != fold, fold_P == fold):
            distances, same = distances_P[part], issame_P[part]
            for threshold in verification.THRESHOLDS:
                said = distances < threshold
                np.sum(said & same), np.sum(said & ~same)
                np.sum(~said & ~same), np.sum(~said & same)


def roc():
    random = np.random.RandomState(0)
    distances_P, issame_P = random.rand(PAIRS) * 4, random.rand(PAIRS) < 0.5
    fold_P = verification.fold_of_pair(PAIRS, FOLDS)
    grid = verification.THRESHOLDS
    ours = best_of(lambda: verification._accepted(distances_P, issame_P, fold_P, FOLDS, grid))
    loop = best_of(lambda: threshold_loop(distances_P, issame_P, FOLDS), times=2)
    whole = best_of(lambda: verification.evaluate_distances(distances_P, issame_P))
    embeddings_ND = random.randn(2 * PAIRS, DIMENSIONS).astype(np.float32)
    compare = best_of(lambda: verification.pair_distances(embeddings_ND))
    print(f"ROC of {PAIRS} pairs, {len(grid)} thresholds, {FOLDS} folds")
    print(f"  loop over thresholds  {1e3 * loop:8.2f} ms")
    print(f"  here                  {1e3 * ours:8.2f} ms, {loop / ours:.0f} x faster (limit 50)")
    print(f"  everything of evaluate but distances: {1e3 * whole:.2f} ms")
    print(f"  distances of {2 * PAIRS} x {DIMENSIONS} embeddings: {1e3 * compare:.2f} ms")


def validate(images=12000, batch_size=64):
    """evaluate_set of a .bin against the same batches through the net alone."""
    import cv2

    from data.eval_data_reader import decode_images, write_pairs
    from evaluation.verification_set import evaluate_set
    from inference.backends.checkpoint import embed_with_flip
    from nets.lineages import NetSpec
    from runtime.session import session_config
    from runtime.tf1 import tf

    spec = NetSpec(net_depth=18, width=0.25)
    random = np.random.RandomState(0)
    noise = random.randint(0, 255, (64, 14, 14, 3)).astype(np.uint8)
    smooth = [cv2.resize(one, (112, 112), interpolation=cv2.INTER_CUBIC) for one in noise]
    encoded = [cv2.imencode(".jpg", one)[1].tobytes() for one in smooth]
    with tempfile.TemporaryDirectory() as directory, tf.Graph().as_default():
        path = os.path.join(directory, "lfw.bin")
        write_pairs(path, [encoded[i % 64] for i in range(images)], np.arange(images // 2) % 2)
        images_BHWC = tf.placeholder(tf.uint8, [batch_size, 112, 112, 3])
        outputs = embed_with_flip(images_BHWC, spec)
        with tf.Session(config=session_config("cpu")) as session:
            session.run(tf.global_variables_initializer())

            def embed_batch(batch):
                return session.run(outputs, {images_BHWC: batch})

            batch = decode_images(encoded, (112, 112))[:batch_size]
            embed_batch(batch)
            before = peak_megabytes()
            start = time.perf_counter()
            inside = [0.0]

            def timed(batch):
                begun = time.perf_counter()
                result = embed_batch(batch)
                inside[0] += time.perf_counter() - begun
                return result

            evaluate_set(timed, path, "lfw", (112, 112), batch_size)
            whole, after = time.perf_counter() - start, peak_megabytes()
            start = time.perf_counter()
            for _ in range(-(-images // batch_size)):
                embed_batch(batch)
            alone = time.perf_counter() - start
    print(f"{images} images of 112 x 112 through {spec.net_depth} layers at quarter width")
    print(f"  the net alone      {alone:8.2f} s")
    print(f"  evaluate_set       {whole:8.2f} s, {100 * (whole / alone - 1):+.1f} % (limit 5 %)")
    print(f"  of it in the net   {inside[0]:8.2f} s, around it {whole - inside[0]:.2f} s")
    print(f"  memory it added    {after - before:8.0f} MB (limit 250)")


def write_ijbc(directory):
    """Lists of IJB-C's size: as many images, templates, media, pairs, gallery templates, probes."""
    random = np.random.RandomState(0)
    meta = os.path.join(directory, "meta")
    os.makedirs(meta)
    template_N = np.append(
        np.arange(IJBC_TEMPLATES),
        random.randint(0, IJBC_TEMPLATES, IJBC_IMAGES - IJBC_TEMPLATES),
    )
    template_N.sort()
    media_N = 20 * template_N + random.randint(0, 20, IJBC_IMAGES)
    subject_M = np.append(
        np.arange(IJBC_GALLERY), random.randint(0, IJBC_GALLERY, IJBC_TEMPLATES - IJBC_GALLERY)
    )
    points = "46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648 0.999"
    _write(meta, "name_5pts_score.txt", (f"{i}.jpg {points}\n" for i in range(1, IJBC_IMAGES + 1)))
    rows = zip(range(1, IJBC_IMAGES + 1), template_N.tolist(), media_N.tolist())
    _write(meta, "face_tid_mid.txt", (f"{i}.jpg {t} {m}\n" for i, t, m in rows))
    probes = np.arange(IJBC_GALLERY, IJBC_TEMPLATES)
    first = np.append(
        subject_M[probes][:IJBC_GENUINE],
        random.randint(0, IJBC_GALLERY, IJBC_PAIRS - IJBC_GENUINE),
    )
    second = np.append(probes[:IJBC_GENUINE], random.choice(probes, IJBC_PAIRS - IJBC_GENUINE))
    same = (subject_M[first] == subject_M[second]).astype(int)
    pairs = zip(first.tolist(), second.tolist(), same.tolist())
    _write(meta, "template_pair_label.txt", (f"{a} {b} {s}\n" for a, b, s in pairs))
    half = IJBC_GALLERY // 2
    parts = (("gallery_G1", 0, half), ("gallery_G2", half, IJBC_GALLERY))
    for name, low, high in parts + (("probe_mixed", IJBC_GALLERY, IJBC_TEMPLATES),):
        rows = ("TEMPLATE_ID,SUBJECT_ID\n",) + tuple(
            f"{t},{subject_M[t]}\n" for t in range(low, high)
        )
        _write(meta, f"1N_{name}.csv", rows)
    return subject_M


def _write(meta, name, lines):
    with open(os.path.join(meta, f"ijbc_{name}"), "w") as stream:
        stream.writelines(lines)


def ijbc(batch_size=4096):
    with tempfile.TemporaryDirectory() as directory:
        pid = os.fork()  # so that writing the lists does not count as memory of reading them
        if pid == 0:
            write_ijbc(directory)
            os._exit(0)
        os.waitpid(pid, 0)
        begun = time.perf_counter()
        clock = Clock()
        images = ijb_metadata.read_images(directory, "IJBC")
        clock("image lists")
        first_P, second_P, issame_P = ijb_metadata.read_pair_list(directory, "IJBC", images)
        galleries = ijb_metadata.read_galleries(directory, "IJBC", images)
        clock("pair list and galleries")
        mode = ijb.Mode(True, True, True)
        templates = ijb.Templates(
            images.template_N, images.weight_N, images.scores_N, len(images.template_ids), [mode]
        )
        making = 0.0
        random = np.random.default_rng(0) if hasattr(np.random, "default_rng") else None
        for start in range(0, IJBC_IMAGES, batch_size):
            tick = time.perf_counter()
            shape = (min(batch_size, IJBC_IMAGES - start), DIMENSIONS)
            plain_BD = random.standard_normal(shape, np.float32)
            making += time.perf_counter() - tick
            templates.add(plain_BD, plain_BD[:, ::-1])
        clock(f"{IJBC_IMAGES} images to templates ({making:.1f} s of it making embeddings)")
        unit_MD = templates.unit(mode)
        scores_P = ijb.pair_scores(unit_MD, first_P, second_P)
        clock(f"{len(scores_P)} scores of pairs")
        figures = ijb.verification_figures(scores_P, issame_P)
        clock("1:1 figures")
        ijb.identification_figures(unit_MD, galleries[:2], galleries[2])
        clock("1:N figures")
        seconds = time.perf_counter() - begun
    print(f"IJB-C at its size: {figures['genuine']} genuine, {figures['impostor']} impostor pairs")
    print(f"  all of it    {seconds:8.1f} s (limit 120)")
    print(f"  peak memory  {peak_megabytes() / 1024:8.2f} GB (limit 4)")


def numbers():
    random = np.random.RandomState(0)
    issame_P = np.arange(MILLION) % 10 == 0
    cosine_P = np.where(issame_P, 0.6, 0.1)
    cosine_P += np.where(issame_P, 0.2, 0.12) * random.standard_normal(MILLION)
    first_P = random.randint(PEOPLE, size=MILLION)
    other_P = (first_P + random.randint(1, PEOPLE, size=MILLION)) % PEOPLE
    identity_P2 = np.stack([first_P, np.where(issame_P, first_P, other_P)], axis=1)
    distances_P, quality_N = 2.0 - 2.0 * cosine_P, random.rand(2 * MILLION)
    of = groups.Groups(["a", "b", "c"], (identity_P2 % 3).ravel())
    before, clock = peak_megabytes(), Clock()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    points = error_rates.operating_points(distances_P, issame_P)
    clock(f"FNMR@FMR of {len(points)} targets, exact intervals")
    verification.auc_and_eer(distances_P, issame_P)
    verification.evaluate_distances(distances_P, issame_P)
    error_rates.d_prime(cosine_P, issame_P)
    clock("EER, d', accuracy, TAR@FAR")
    pairs = identity_intervals.PairIdentities(issame_P, identity_P2)
    for point in points:
        wrong_P = (distances_P < point.squared_l2) != issame_P
        identity_intervals.intervals_by_identity(wrong_P, pairs)
    clock("their intervals by identity")
    for kind in calibration.KINDS:
        calibration.cross_validate(cosine_P, issame_P, identity_P2, 0.5, kind)
        clock(f"{kind} calibration, cross-validated by identity")
    quality.measure_quality("norm", quality_N, distances_P, issame_P, points[1].squared_l2)
    clock("quality: correlation and error versus discard")
    everything, mark = time.perf_counter() - begun, time.perf_counter()
    cpu, cpu_mark = time.process_time() - cpu_begun, time.process_time()
    identity_intervals.curve_intervals(distances_P, pairs)
    clock("bootstrap of EER and d' over identities, 1,000 rounds")
    groups.group_report(distances_P, issame_P, identity_P2, of, 1e-3)
    clock("groups: rates, matrix, and a bootstrap of 1,000 rounds")
    rounds, cpu_rounds = time.perf_counter() - mark, time.process_time() - cpu_mark
    print(f"{MILLION:,} pairs of {PEOPLE:,} identities")
    print(f"  everything but bootstraps  {everything:6.2f} s, CPU {cpu:.2f} s (limit 5)")
    print(f"  bootstraps and groups      {rounds:6.2f} s, CPU {cpu_rounds:.2f} s (limit 20)")
    print(f"  memory it added            {peak_megabytes() - before:6.0f} MB (limit 1000)")


class Clock:
    """Prints what each part took, by the wall clock and of CPU time (a loaded machine waits)."""

    def __init__(self):
        self.last, self.cpu = time.perf_counter(), time.process_time()

    def __call__(self, what):
        now, cpu = time.perf_counter(), time.process_time()
        print(f"  {now - self.last:8.1f} s  CPU {cpu - self.cpu:6.1f} s  {what}", flush=True)
        self.last, self.cpu = now, cpu


if __name__ == "__main__":
    known = {"roc": roc, "validate": validate, "ijbc": ijbc, "numbers": numbers}
    for name in sys.argv[1:] or known:
        if name not in known:
            sys.exit(f"error: {name} is not known; choose from {', '.join(known)}.")
        known[name]()
