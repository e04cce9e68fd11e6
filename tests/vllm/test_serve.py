"""`vllm serve` with three flags more, over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reference
from conftest import ROOT, TEXT, Prompts

SETTINGS = {"chunkkv": {"keep": 0.5, "min_tokens": 128, "threads": 1}}


class Server:
    """A running `vllm serve`."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        command = [sys.executable, str(Path(__file__).with_name("vllm_cli.py"))]
        command += ["serve", str(model)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "m"]
        command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
        command += ["--block-size", "32", "--kv-cache-memory-bytes", str(1 << 28)]
        command += ["--scheduler-cls", "chunkkv_vllm.Scheduler"]
        command += ["--worker-cls", "chunkkv_vllm.Worker"]
        command += ["--additional-config", json.dumps(SETTINGS)]
        environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOG_STATS_INTERVAL": "1"}
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        pytest.fail(f"vllm serve did not start:\n{self.log.read_text()[-6000:]}")

    def stop(self) -> None:
        """Stops it and the processes that it started."""
        if self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def complete(self, prompt: list[int], **options: Any) -> str:
        """A greedy continuation of 32 tokens."""
        body = {"model": "m", "prompt": prompt, "max_tokens": 32, "temperature": 0}
        body |= {"ignore_eos": True} | options
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)["choices"][0]["text"]


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests."""
    server = Server(model, tmp_path_factory.mktemp("serve") / "log")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def test_requests_are_compressed_or_not_as_they_ask(
    server: Server, model: Path, prompts: Prompts
) -> None:
    from transformers import AutoTokenizer

    (prompt,) = prompts(300)
    decode = AutoTokenizer.from_pretrained(model).decode
    full = decode(reference.greedy(model, prompt, 32))
    assert server.complete(prompt, vllm_xargs={"chunkkv": "off"}) == full
    assert server.complete(prompt, vllm_xargs={"chunkkv": '{"keep": 2}'}) == full
    assert "compressed," not in server.log.read_text()
    assert "goes on uncompressed: Expected keep to be" in server.log.read_text()

    newest = decode(reference.greedy(model, prompt, 32, [[[*range(292, 300)]]] * 30))
    assert server.complete(prompt, vllm_xargs={"chunkkv": '{"budget": 8}'}) == newest
    server.complete(prompt)
    time.sleep(1.2)  # a line at most once in VLLM_LOG_STATS_INTERVAL
    server.complete(prompt)
    log = server.log.read_text()
    assert "chunkkv: 1 prompts compressed, 292 tokens dropped, 9 blocks freed" in log
    assert "2 prompts compressed, 442 tokens dropped" in log


def test_the_deno_client_compares_answers(server: Server) -> None:
    deno = os.environ.get("CHUNKKV_DENO") or shutil.which("deno")
    run = [deno] if deno else ["npx", "-y", "deno@2"]
    command = [*run, "run", "--no-config", f"--allow-net=127.0.0.1:{server.port}"]
    command += [str(ROOT / "bindings" / "vllm" / "client.ts"), "--url", server.url, "--json"]
    text = TEXT.read_text()[:2000]
    output = subprocess.run(
        [*command, "--keep", "0.9,0.1", "--tokens", "16"],
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert output.returncode == 0, output.stderr
    off, most, little = [json.loads(line) for line in output.stdout.splitlines()]
    assert [off["override"], most["override"], little["override"]] == [
        "off",
        {"keep": 0.9},
        {"keep": 0.1},
    ]
    assert off["promptTokens"] == little["promptTokens"] > 400
    assert off["text"] and off["text"] != little["text"]
