"""A local page and a REST API on a face bank: python -m serving.web --bank B --model M."""

import dataclasses
import logging
from typing import Optional, Sequence, Tuple

from data.convert.worker_pool import allowed_cores
from faces.cropping import SMALLEST_FACE
from runtime.cli import run
from runtime.flags import flag, parse_flags
from serving.face_bank import FaceBank
from serving.http_server import LOOPBACK, Access, Server, open_server
from serving.index import EXACT, SEARCHES, Index
from serving.recognizer import Recognizer
from serving.service import Service
from serving.thresholds import Calibration, resolve

SHORTEST_TOKEN = 16


@dataclasses.dataclass(frozen=True)
class WebConfig:
    """Flags of serving.web."""

    bank: str = flag(dataclasses.MISSING, "the bank's file; created where it is not there")
    model: str = flag(dataclasses.MISSING, "an exported model or a checkpoint's prefix")
    detector: str = flag("auto", "a YuNet .onnx, mtcnn, auto or none", "photos")
    flip: bool = flag(True, "add the mirrored image's embedding", "photos")
    smallest_face: int = flag(SMALLEST_FACE, "pixels of the smallest face", "photos", low=1)
    threshold: Optional[str] = flag(
        None, "squared L2 (1.54) or cosine (cosine:0.23) of one person", "threshold"
    )
    far: Optional[float] = flag(
        None, "share of other people accepted, by the bank's calibration", "threshold"
    )
    search: str = flag(EXACT, "exact, or approximate for millions of samples", choices=SEARCHES)
    host: str = flag("127.0.0.1", "address to listen on", "network")
    port: int = flag(8000, "port to listen on; 0: a free one", "network", low=0, high=65535)
    token: Optional[str] = flag(
        None, "what clients send as Authorization: Bearer; required beyond 127.0.0.1", "network"
    )
    hosts: Tuple[str, ...] = flag((), "more names that the Host header may hold", "network")


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(WebConfig, argv, __doc__)
    server = build_server(config)
    host, port = server.server_address[:2]
    logging.info("http://%s:%d", f"[{host!s}]" if ":" in str(host) else str(host), port)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        logging.info("stopped.")
    finally:
        server.server_close()
    return 0


def build_server(config: WebConfig) -> Server:
    """A server that listens and does not serve yet."""
    check_network(config)
    recognizer = Recognizer(
        config.model, config.detector, config.flip, smallest_face=config.smallest_face
    )
    bank = FaceBank.open_or_create(config.bank, recognizer.contract)
    stored = bank.calibration()
    calibration = Calibration(*stored) if stored else None
    threshold = resolve(config.threshold, config.far, calibration)
    service = Service(
        Index(bank, search=config.search), recognizer, threshold, calibration, allowed_cores()
    )
    hosts = frozenset(name.lower() for name in LOOPBACK + (config.host,) + config.hosts)
    return open_server(config.host, config.port, service, Access(hosts, config.token))


def check_network(config: WebConfig) -> None:
    """Beyond the loopback address nobody is served without a token."""
    if config.token is not None and len(config.token) < SHORTEST_TOKEN:
        raise ValueError(f"--token has less than {SHORTEST_TOKEN} characters; give a longer one.")
    if config.host not in LOOPBACK and config.token is None:
        raise ValueError(
            f"--host {config.host} is reachable from other machines: pass --token, and put a proxy "
            "with TLS in front (docs/serving.md)."
        )


if __name__ == "__main__":
    run(main)
