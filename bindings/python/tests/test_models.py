"""Promise: a model of another package can fail, be slow or be left behind, and Python goes on or ends."""

from __future__ import annotations

from pathlib import Path

import pytest

import tldr_loader as tldr
from conftest import Child, Corpus

# Two loaders whose model fails on its fifth batch and takes its time afterwards, while others wait for it.
FAILING = """
import logging, time
import tldr_loader as tldr
logging.disable(logging.WARNING)
real = tldr.Captioner.load({path!r})

class Model:
    calls = 0

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def signals(self, previews, captions):
        Model.calls += 1
        if Model.calls == 5:
            raise RuntimeError("the model broke")
        if Model.calls > 5:
            time.sleep(0.2)
        return self.model.signals(previews, captions)

class Source:
    path = {path!r}

    def _scorer(self):
        return Model(real._scorer())

for _ in range(2):
    Model.calls = 0
    loader = tldr.Loader(
        {urls!r},
        captioner=Source(),
        selection=tldr.Selection(keep_ratio=0.25, window=32),
        batch_size=8,
        images=tldr.Images(image_size=16),
        world=tldr.World(lanes=4),
    )
    try:
        for batch in loader:
            pass
    except tldr.CaptionerError as error:
        assert "RuntimeError: the model broke" in str(error), error
    else:
        raise SystemExit("no error")
    del loader
print("over")
"""


@pytest.fixture(scope="module")
def directory(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "captioner"
    captioner = tldr.Captioner.train(
        corpus.urls, path, preset="tiny", epochs=1, batch_size=20, vocab_size=300
    )
    captioner.fit(corpus.urls, clusters=4)
    return path


def test_a_loader_is_dropped_while_its_model_waits_for_python(corpus: Corpus, directory: Path) -> None:
    with Child(FAILING.format(path=str(directory), urls=corpus.urls), deadline=120) as child:
        code, out, error = child.end()
    assert (code, out) == (0, "over\n"), error
