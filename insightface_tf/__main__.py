"""insightface-tf COMMAND ...: the scripts of the repository as one command.

`insightface-tf train --config configs/demo.yaml` is `python3 train_nets.py --config
configs/demo.yaml`. Paths are relative to the current directory; a config's name is also looked up
in the installed package.
"""

import os
import runpy
import sys
from typing import List, Optional

from insightface_tf import __version__, root

COMMANDS = {  # command: (script, what it does)
    "train": ("train_nets.py", "train on one device"),
    "train-many": ("train_nets_mgpu.py", "train on many devices and hosts, or plan such a run"),
    "convert": ("data/mx2tfrecords.py", "convert an InsightFace .rec to TFRecord shards"),
    "images": ("data/image_folder.py", "convert folders and lists of images"),
    "inspect": ("data/inspect_dataset.py", "report and draw a data set"),
    "synthetic": ("data/synthetic.py", "draw the synthetic faces of the demo"),
    "weights": ("convert_weights.py", "import and export weights of other projects"),
    "evaluate": ("eval_ckpt_file.py", "evaluate checkpoints and models on .bin sets"),
    "evaluate-ijb": ("eval_ijb.py", "evaluate on IJB-B and IJB-C"),
    "verify": ("verification.py", "evaluate saved embeddings"),
    "export": ("export_model.py", "export a checkpoint to ONNX, TFLite, SavedModel, MindIR or OM"),
    "infer": ("infer.py", "embed images, evaluate and benchmark a model"),
    "facebank": ("facebank.py", "enrol, identify, verify and erase people"),
    "demo": ("demo.py", "the PyTorch port's demo: who is this face?"),
    "serve": ("serving/web.py", "the face bank as a local page and REST API"),
}


def usage() -> str:
    lines = [f"  {name:<13} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: insightface-tf COMMAND [flags]", "", "commands:"]
        + lines
        + ["", "insightface-tf COMMAND --help lists the flags. insightface-tf --version"]
    )


def main(argv: Optional[List[str]] = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(__version__)
        sys.exit(0)
    command = words[0]
    if command not in COMMANDS:
        print(
            f"error: insightface-tf has no command {command!r}; it has {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        sys.exit(2)
    # The process is ours, so the root comes first; a module of the user's cannot replace one.
    sys.path.insert(0, root())
    script = os.path.join(root(), COMMANDS[command][0])
    os.environ["INSIGHTFACE_TF_PROGRAM"] = f"insightface-tf {command}"
    sys.argv = [script] + installed_configs(words[1:], root())
    runpy.run_path(script, run_name="__main__")


def installed_configs(words: List[str], directory: str) -> List[str]:
    """The words, where a --config that does not exist here but is installed has its full path."""
    found = list(words)
    for place, word in enumerate(words[1:], start=1):
        installed = os.path.join(directory, "configs", os.path.basename(word))
        if (
            words[place - 1] == "--config"
            and not os.path.exists(word)
            and os.path.exists(installed)
        ):
            found[place] = installed
    return found


if __name__ == "__main__":
    main()
