"""One export: read the checkpoint, write the file, compare it, put it in place, describe it."""

import dataclasses
import shutil
import time
from typing import Dict, List, Optional, Tuple

import numpy as np

from checkpoint.model_metadata import KEY, ModelMetadata
from evaluation.verification_set import evaluate_set
from export import (
    ascend,
    int8,
    mindir,
    mindspore_files,
    onnx_proto,
    proof,
    runtimes,
    tensorflow_files,
)
from export.config import ExportConfig, check
from export.fold import optimize
from export.graph import Graph
from export.inference_graph import Network, embed, read_network
from export.manifest import Written, metadata_of, write_manifests
from export.onnx_writer import OnnxForm, onnx_model
from export.proof import Proof, Reference
from export.staging import check_target, staged
from export.translate import translate

ACCURACY_BATCH = 32
LOWEST_COSINE = {"fp16": 0.999, "int8": 0.9}  # of a quantized file's embeddings to the checkpoint's


@dataclasses.dataclass
class Export:
    """A checkpoint that is being exported."""

    config: ExportConfig  # the flags
    network: Network  # the checkpoint
    metadata: ModelMetadata  # what the file records about itself
    seconds_of_comparison: float = 0.0  # spent so far
    _reference: Optional[Reference] = None

    def reference(self) -> Reference:
        """The images of the comparison and the checkpoint's embeddings, computed once."""
        if self._reference is None:
            config, spec = self.config, self.network.spec
            images_NHWC = proof.proof_images(config.proof, spec, config.proof_images)
            self._reference = Reference(images_NHWC, embed(self.network, images_NHWC))
        return self._reference

    def compare(self, opened: Dict[str, runtimes.Open], batch_size: Optional[int]) -> List[Proof]:
        """A written file against the checkpoint's graph. batch_size: of a file of a fixed batch."""
        if not opened:
            return []
        begun = time.perf_counter()
        form = self.config.form
        proofs = proof.compare(opened, self.reference(), self.network.spec, form, batch_size)
        self.seconds_of_comparison += time.perf_counter() - begun
        return proofs


def export(config: ExportConfig) -> int:
    """Writes what the flags describe; its exit code."""
    begun = time.perf_counter()
    check(config)
    check_target(config.path, config.overwrite)
    _check_format(config)
    network = read_network(config.ckpt_file, config.normalize, config.ema)
    exported = Export(config, network, metadata_of(network, config.form))
    with staged(config.path) as path:
        proofs, precision = WRITERS[config.format](exported, path)
    written = Written(config.path, config.format, precision, proofs)
    write_manifests(written, network, exported.metadata)
    seconds = time.perf_counter() - begun
    print(
        f"{config.path}: {config.format} {precision}, {_describe(network)}, {seconds:.1f} s "
        f"({exported.seconds_of_comparison:.1f} s of it to compare)."
    )
    for one in proofs:
        print(
            f"{one.runtime}: {one.images} images, largest relative difference "
            f"{one.largest_difference:.2g}, lowest cosine {one.lowest_cosine:.7f}."
        )
    if not proofs and config.format in ("onnx", "om"):
        print("Not compared with the checkpoint: pip install onnxruntime.")
    return 0


def graph_of(network: Network, fold: bool = True) -> Graph:
    """The exported graph of a network."""
    tensors = network.graph
    graph = translate(tensors.pixels_NHWC, tensors.features_ND, network.arrays)
    if fold:
        optimize(graph)
    return graph


def write_onnx(
    path: str, network: Network, form: OnnxForm, metadata: ModelMetadata, fold: bool = True
) -> None:
    """The ONNX file of a network; then onnx.checker, where the onnx package is installed."""
    _write_chunks(
        path,
        onnx_model(graph_of(network, fold), network.spec, form, {KEY: metadata.to_json()}),
    )
    onnx = runtimes.optional("onnx")
    if onnx is not None:
        onnx.checker.check_model(path)


def _write_chunks(path: str, chunks: onnx_proto.Chunks) -> None:
    with open(path, "wb") as stream:
        for chunk in chunks:
            stream.write(chunk)


def _check_format(config: ExportConfig) -> None:
    """Refuses a format whose tools are missing, before the checkpoint is read."""
    if config.format == "om":
        ascend.check(config.soc_version, config.opset or 11, config.form)
    if config.format == "mindir":
        mindir.interpreter(config.mindspore_python)


def _onnx(exported: Export, path: str) -> Tuple[List[Proof], str]:
    config, network = exported.config, exported.network
    images_NHWC = _calibration_images(exported) if config.int8 else None
    write_onnx(path, network, _onnx_form(config), exported.metadata, config.fold)
    proofs = exported.compare(runtimes.open_onnx(path), config.batch_size)
    proof.check(proofs, config.path)
    if images_NHWC is None:
        return proofs, "fp32"
    quantized = f"{path}.int8.onnx"
    batch = runtimes.input_of(images_NHWC, network.spec, config.form)
    int8.quantize(path, quantized, batch, {KEY: exported.metadata.to_json()})
    proofs = exported.compare(runtimes.open_onnx(quantized), config.batch_size)
    _check_cosine(proofs, config.path, "int8")
    if config.accuracy_set:
        _check_accuracy(exported, path, quantized)
    shutil.move(quantized, path)
    return proofs, "int8"


def _onnx_form(config: ExportConfig) -> OnnxForm:
    batch = config.batch_size
    if config.format == "om":
        batch = batch or 1
    return OnnxForm(
        opset=config.opset or (int8.OPSET if config.int8 else 11),
        input_form=config.form,
        prelu=config.prelu,
        batch_size=batch,
        input_name=config.input_name,
        output_name=config.output_name,
    )


def _om(exported: Export, path: str) -> Tuple[List[Proof], str]:
    """The static ONNX next to the target, then atc; without it the command line to run."""
    config, network = exported.config, exported.network
    form = _onnx_form(config)
    onnx_path = config.path[: -len(".om")] + ".onnx"
    check_target(onnx_path, config.overwrite)
    with staged(onnx_path) as staged_path:
        write_onnx(staged_path, network, form, exported.metadata, config.fold)
        proofs = exported.compare(runtimes.open_onnx(staged_path), form.batch_size)
        proof.check(proofs, onnx_path)
    words = ascend.command(
        onnx_path,
        config.path,
        network.spec,
        form.input_name,
        int(form.batch_size or 1),
        config.soc_version,
    )
    if shutil.which("atc") is None:
        raise ValueError(
            f"atc is not on the PATH, so only {onnx_path} was written; source CANN's set_env.sh "
            f"where it is installed and run: {ascend.spelled(words)}"
        )
    words = [word if word[:9] != "--output=" else f"--output={path[:-3]}" for word in words]
    ascend.compile_om(words, path)
    return proofs, "fp16"


def _pb(exported: Export, path: str) -> Tuple[List[Proof], str]:
    tensorflow_files.write_pb(path, exported.network, exported.config.batch_size)
    return _compared_in_tensorflow(exported, path), "fp32"


def _saved_model(exported: Export, path: str) -> Tuple[List[Proof], str]:
    tensorflow_files.write_saved_model(path, exported.network, exported.config.batch_size)
    return _compared_in_tensorflow(exported, path), "fp32"


def _compared_in_tensorflow(exported: Export, path: str) -> List[Proof]:
    config = exported.config
    proofs = exported.compare(runtimes.open_tensorflow(path), config.batch_size)
    proof.check(proofs, config.path)
    return proofs


def _tflite(exported: Export, path: str) -> Tuple[List[Proof], str]:
    config = exported.config
    precision = "int8" if config.int8 else "fp16" if config.fp16 else "fp32"
    images_NHWC = _calibration_images(exported) if config.int8 else None
    tensorflow_files.write_tflite(path, exported.network, config.batch_size, precision, images_NHWC)
    proofs = exported.compare(runtimes.open_tflite(path), config.batch_size or 1)
    if precision == "fp32":
        proof.check(proofs, config.path)
    else:
        _check_cosine(proofs, config.path, precision)
    return proofs, precision


def _ckpt_ms(exported: Export, path: str) -> Tuple[List[Proof], str]:
    mindspore_files.write_checkpoint(path, exported.network)
    return [], "fp32"


def _mindir(exported: Export, path: str) -> Tuple[List[Proof], str]:
    config, network = exported.config, exported.network
    graph = graph_of(network, config.fold)
    begun = time.perf_counter()
    python = mindir.interpreter(config.mindspore_python)
    proofs = [
        mindir.write_mindir(
            path, network, graph, exported.reference(), config.batch_size or 1, python
        )
    ]
    exported.seconds_of_comparison += time.perf_counter() - begun
    proof.check(proofs, config.path)
    return proofs, "fp32"


def _check_cosine(proofs: List[Proof], path: str, precision: str) -> None:
    limit = LOWEST_COSINE[precision]
    for one in proofs:
        if not one.lowest_cosine >= limit:
            raise ValueError(
                f"{path} was not written: in {one.runtime} an {precision} embedding has a cosine "
                f"of {one.lowest_cosine:.3f} to the checkpoint's (limit {limit:g}); calibrate "
                "on more images of the kind that it will see."
            )


def _calibration_images(exported: Export) -> np.ndarray:
    path, spec = exported.config.calibration, exported.network.spec
    assert path is not None
    return proof.read_images(path, spec, int8.CALIBRATION_IMAGES, "--calibration")


def _check_accuracy(exported: Export, fp32: str, quantized: str) -> None:
    """Prints accuracy before and after quantization; refuses a larger drop than the flag allows."""
    config = exported.config
    before, after = (_accuracy(exported, path) for path in (fp32, quantized))
    print(f"{config.accuracy_set}: accuracy {before:.4f} in fp32, {after:.4f} in int8.")
    if before - after > config.largest_drop:
        raise ValueError(
            f"{config.path} was not written: int8 loses {before - after:.4f} of accuracy on "
            f"{config.accuracy_set}, and --largest_drop is {config.largest_drop:g}."
        )


def _accuracy(exported: Export, path: str) -> float:
    config, network = exported.config, exported.network
    runtime = runtimes.open_onnx(path)["onnxruntime"]()
    size = config.batch_size or ACCURACY_BATCH

    def embed_batch(images_NHWC: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        both = (images_NHWC, images_NHWC[:, :, ::-1])
        plain, mirrored = (
            runtime.run(runtimes.input_of(np.ascontiguousarray(x), network.spec, config.form))
            for x in both
        )
        return plain, mirrored

    assert config.accuracy_set is not None
    image_size = (network.spec.image_size[0], network.spec.image_size[1])
    return evaluate_set(embed_batch, config.accuracy_set, "set", image_size, size).flip.accuracy


def _describe(network: Network) -> str:
    spec = network.spec
    return f"{spec.lineage} {spec.block} {spec.net_depth}, step {network.record.get('step', '?')}"


WRITERS = {
    "onnx": _onnx,
    "om": _om,
    "pb": _pb,
    "savedmodel": _saved_model,
    "tflite": _tflite,
    "ckpt_ms": _ckpt_ms,
    "mindir": _mindir,
}
