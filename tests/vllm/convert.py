"""Converts the SmolLM2 GGUF that the project's setup fetches to a Hugging Face folder (fp32).

Usage: convert.py FILE.gguf FOLDER. Does nothing where the folder is complete.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(gguf: Path, folder: Path) -> None:
    """Writes the model's weights, dequantised, and its tokenizer to `folder`."""
    source = {"gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the weights are plain from here on
    model = AutoModelForCausalLM.from_config(config)
    left = model.load_state_dict(quantised.state_dict(), strict=False)
    if left.unexpected_keys or set(left.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"Expected all weights in {gguf} but found {left}")
    # Beside the target first: a folder that is there is complete.
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.float32).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


if __name__ == "__main__":
    gguf_path, folder_path = map(Path, sys.argv[1:3])
    if not folder_path.exists():
        folder_path.parent.mkdir(parents=True, exist_ok=True)
        convert(gguf_path, folder_path)
