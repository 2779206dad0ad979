"""What a run and an export record about a model: metadata, manifest, model card."""

import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Sequence

from checkpoint.model_metadata import KEY, ModelMetadata
from evaluation.report.run_logs import metrics_path, read_metrics
from export.inference_graph import Network, digest
from export.proof import Proof
from runtime.files import atomic_write, sha256_of

MANIFEST_VERSION = 2  # of InsightFace's model packages
LICENSE = "MODEL.LICENSE"  # the file name that InsightFace's manifests must name
NOT_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")


class Written(NamedTuple):
    """A file that an export has put in place."""

    path: str  # of the file or directory
    file_format: str  # onnx, savedmodel, ...
    precision: str  # fp32, fp16 or int8
    proofs: List[Proof]  # against the checkpoint, one a runtime


def metadata_of(network: Network, input_form: str) -> ModelMetadata:
    """The record of a network that is exported with an input form."""
    spec, record = network.spec, network.record
    return ModelMetadata(
        lineage=spec.lineage,
        net=spec.block,
        net_depth=spec.net_depth,
        width=spec.width,
        embedding_size=spec.embedding_size,
        image_size=list(spec.image_size),
        channel_order=spec.row.pixels,
        mean=list(spec.row.mean),
        scale=spec.row.divisor,
        input_form=input_form,
        normalized=network.normalize or spec.row.l2,
        checkpoint_sha256=digest(network.arrays),
        step=int(record.get("step", -1)),
        dataset=_dataset(record),
        accuracy={name: row["accuracy_flip"] for name, row in validations(network).items()},
    )


def validations(network: Network) -> Dict[str, Dict[str, Any]]:
    """{verification set: its line of metrics.jsonl} at the checkpoint's step."""
    directory = os.path.dirname(os.path.dirname(os.path.abspath(network.prefix)))
    training = network.record.get("training") or {}
    lines = read_metrics(metrics_path(directory, {"training": training}))
    found = {}
    for line in lines:
        if line.get("kind") == "validation" and line["step"] == network.record.get("step"):
            if "set" in line and "accuracy_flip" in line:
                found[line["set"]] = line
    return found


def write_manifests(written: Written, network: Network, metadata: ModelMetadata) -> None:
    """`<file>.manifest.json`, and `manifest.json` and MODEL_CARD.md in the file's directory.

    The two with fixed names stay as they are where they describe another file."""
    directory = _directory(written.path)
    content = json.dumps(manifest(written, network, metadata), indent=1, sort_keys=True) + "\n"
    if not os.path.isdir(written.path):
        _write(f"{written.path}.manifest.json", content)
    name = os.path.basename(written.path)
    for fixed, text in (
        ("manifest.json", content),
        ("MODEL_CARD.md", model_card(written, network, metadata)),
    ):
        path = os.path.join(directory, fixed)
        if _describes_another(path, name):
            print(f"{path} describes another file and stays as it is.")
        else:
            _write(path, text)


def manifest(written: Written, network: Network, metadata: ModelMetadata) -> Dict[str, Any]:
    """InsightFace's package manifest, and under our own key what it has no place for."""
    name = os.path.basename(written.path)
    model_id = NOT_AN_ID.sub("-", os.path.splitext(name)[0]).strip("-._") or "model"
    tasks = {}
    preprocessing = _insightface_preprocessing(metadata)
    if written.file_format == "onnx" and preprocessing is not None:
        tasks["recognition"] = {
            "file": name,
            "preprocessing": preprocessing,
            "preprocessing_version": "1",
            "input_size": metadata.image_size[::-1],
            "embedding_dimension": metadata.embedding_size,
            "sha256": sha256_of(written.path),
        }
    return {
        "manifest_version": MANIFEST_VERSION,
        "model_id": model_id[:128],
        "license": LICENSE,
        "tasks": tasks,
        KEY: dict(metadata._asdict()),
        "file": name,
        "format": written.file_format,
        "precision": written.precision,
        "proof": [dict(proof._asdict()) for proof in written.proofs],
    }


def _insightface_preprocessing(metadata: ModelMetadata) -> Any:
    """In InsightFace's words; None where its RGB and one mean cannot feed the file."""
    if metadata.input_form == "raw":
        return "embedded"
    if metadata.input_form == "scaled" and metadata.channel_order == "RGB":
        if len(set(metadata.mean)) == 1:
            return {"mean": metadata.mean[0], "std": metadata.scale}
    return None


def model_card(written: Written, network: Network, metadata: ModelMetadata) -> str:
    """MODEL_CARD.md: what the model is, what is known about it, what the user has to fill in."""
    name = os.path.basename(written.path)
    sections = [
        ["# Model card", "", f"File: `{name}` ({written.file_format}, {written.precision})", ""],
        ["## Model", ""] + _table(_model_rows(metadata)),
        ["## Training data", ""] + _table(_data_rows(network.record)),
        ["## Training recipe", ""] + _table(_recipe_rows(network.record)),
        ["## Accuracy", ""] + _accuracy(network),
        ["## The file against its checkpoint", ""] + _proof_lines(written.proofs),
        LIMITS.splitlines() + [""],
        LICENSES.splitlines(),
    ]
    return "\n".join(line for section in sections for line in section) + "\n"


LIMITS = """## Intended use and limits

The model maps an aligned face crop to an embedding. Two embeddings are compared by their cosine.

- Align faces to the template of InsightFace before they are embedded; other crops lower accuracy.
- Thresholds belong to this model and to the verification set they were computed on. Choose the
  threshold on pairs of your own, at the false accept rate that your use permits.
- Accuracy differs between groups of people. It was not measured per group here.
- The model does not detect photographs of photographs, masks or generated faces.
- Biometric data is protected by law in many countries. Obtain consent where it is required.
"""

LICENSES = """## License

- License of the weights: TODO
- License of the training data: TODO
- Contact: TODO"""

RECIPE = (
    "loss",
    "margin",
    "scale",
    "optimizer",
    "lr",
    "schedule",
    "batch_size",
    "weight_decay",
    "dropout",
    "ema",
    "seed",
)


def _model_rows(metadata: ModelMetadata) -> Dict[str, Any]:
    height, width = metadata.image_size
    return {
        "Lineage": metadata.lineage,
        "Network": f"{metadata.net} {metadata.net_depth}, width {metadata.width:g}",
        "Input": f"{height} x {width}, {_input(metadata)}",
        "Embedding": f"{metadata.embedding_size} numbers, "
        + ("of length 1" if metadata.normalized else "not normalized"),
        "Training step": metadata.step if metadata.step >= 0 else "unknown",
        "SHA-256 of the weights": metadata.checkpoint_sha256,
    }


def _input(metadata: ModelMetadata) -> str:
    mean = ", ".join(f"{value:g}" for value in metadata.mean)
    return {
        "raw": "RGB, 0-255, float32, channels first",
        "uint8": "RGB, 0-255, uint8, channels last",
        "scaled": f"{metadata.channel_order}, (x - {mean}) / {metadata.scale:g}, float32, "
        "channels first",
    }[metadata.input_form]


def _dataset(record: Dict[str, Any]) -> str:
    """The name of the file that the training shards were made from."""
    return str((record.get("dataset") or {}).get("source") or "")


def _data_rows(record: Dict[str, Any]) -> Dict[str, Any]:
    dataset = record.get("dataset") or {}
    rows = {"Name": _dataset(record) or "TODO"}
    rows.update({key.capitalize(): dataset.get(key, "TODO") for key in ("images", "identities")})
    return rows


def _recipe_rows(record: Dict[str, Any]) -> Dict[str, Any]:
    training = record.get("training") or {}
    rows = {key: training[key] for key in RECIPE if key in training}
    if "images_seen" in record:
        rows["images_seen"] = record["images_seen"]
    return rows


def _accuracy(network: Network) -> List[str]:
    rows = validations(network)
    if not rows:
        return ["No verification result of this checkpoint was found next to it.", ""]
    lines = ["| Set | Accuracy | 95 % interval | Threshold (cosine) |", "|---|---|---|---|"]
    for name in sorted(rows):
        row = rows[name]
        interval = row.get("accuracy_flip_interval")
        spelled = "{:.4f} - {:.4f}".format(*interval) if interval else ""
        cosine = f"{row['cosine']:.3f}" if isinstance(row.get("cosine"), float) else ""
        drawn = " (drawn faces)" if row.get("synthetic") else ""
        lines.append(f"| {name}{drawn} | {row['accuracy_flip']:.4f} | {spelled} | {cosine} |")
    return lines + ["", "With the mirrored image's embedding added; ten folds.", ""]


def _proof_lines(proofs: Sequence[Proof]) -> List[str]:
    if not proofs:
        return ["Not compared: no runtime for this format was installed.", ""]
    lines = [
        "| Runtime | Images | Largest relative difference | Lowest cosine |",
        "|---|---|---|---|",
    ]
    for proof in proofs:
        numbers = f"{proof.largest_difference:.2g} | {proof.lowest_cosine:.7f}"
        lines.append(f"| {proof.runtime} | {proof.images} | {numbers} |")
    return lines + [""]


def _table(rows: Dict[str, Any]) -> List[str]:
    if not rows:
        return ["Not recorded in the checkpoint.", ""]
    cells = {key: str(value).replace("|", "\\|") for key, value in rows.items()}
    return ["| | |", "|---|---|"] + [f"| {key} | {cell} |" for key, cell in cells.items()] + [""]


def _describes_another(path: str, name: str) -> bool:
    """Whether a manifest or a model card exists that is about another file."""
    if not os.path.exists(path):
        return False
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    return f'"file": "{name}"' not in text and f"File: `{name}`" not in text


def _directory(path: str) -> str:
    return path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))


def _write(path: str, content: str) -> None:
    with atomic_write(path) as stream:
        stream.write(content)
