import pytest

from tests.serving.clients import config_of, serve
from tests.serving.tiny_models import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with a tiny model, for a bank of the module's own."""
    folder = tmp_path_factory.mktemp("web")
    write_model(folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """A running server of that directory."""
    server = serve(config_of(folder))
    yield server
    server.shutdown()
    server.server_close()
