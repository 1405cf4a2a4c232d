"""The `openai` package of JavaScript against a server that runs. npm installs it once, into rung's cache folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from live_server import KEY, Live
from rung.cache import cache_folder
from rung.resume import folder_once

VERSION = "6.30.1"  # that runs with node 20
SCRIPT = Path(__file__).with_name("openai_client.mjs")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script in a folder where node finds the package. The tests are skipped where that cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    kept = folder_once(cache_folder() / "npm" / f"openai-{VERSION}", install)
    folder = tmp_path_factory.mktemp("script")
    os.symlink(kept / "node_modules", folder / "node_modules")
    return Path(shutil.copy(SCRIPT, folder))


def install(folder: Path) -> None:
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    try:
        done = subprocess.run([*command, f"openai@{VERSION}"], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install openai within two minutes")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install openai {VERSION}: {done.stderr.strip()[-300:]}")


def test_the_javascript_client_works_as_it_is(live: Live, script: Path) -> None:
    command = ["node", str(script), f"{live.url}/v1", KEY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["models"]) == [["cards", live.base], ["tiny", None], ["tuned", live.base]]
    assert told["whole"] == told["streamed"] and told["usage"]["completion_tokens"] > 0
    assert told["sources"] == ["door"]
    assert told["parsed"]["colour"] in ("red", "green")
    assert told["unknown"] == "NotFoundError 404 model_not_found"
    assert told["empty"].startswith("BadRequestError 400")
    assert told["stranger"].startswith("AuthenticationError 401")
