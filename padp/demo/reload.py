"""A saved adapter in a new process: ``python -m padp.demo.reload CHECKPOINT TOKENS``.

TOKENS holds token numbers, their mask and what the trained model made of them. Prints the largest difference, unmerged
and merged, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import padp
from padp.demo.encoder import Side, load, whole


def compare_in_new_process(checkpoint: Path, tokens: Path) -> dict[str, float]:
    """Run this file and read what it prints."""
    command = [sys.executable, "-m", "padp.demo.reload", str(checkpoint), str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the new process failed:\n{done.stderr.strip()}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def differences(checkpoint: Path, tokens: Path) -> dict[str, float]:
    """The largest difference between what was saved and what the loaded adapter puts out, unmerged and merged."""
    saved = load_file(tokens)
    side = Side(saved["inputs"], saved["attention_mask"])
    model, _ = load()
    padp.load(model, checkpoint)
    model.eval()
    with torch.no_grad():
        unmerged = whole(model, side)
        padp.merge(model)
        merged = whole(model, side)
    return {"unmerged": float((unmerged - saved["outputs"]).abs().max()),
            "merged": float((merged - saved["outputs"]).abs().max())}


if __name__ == "__main__":
    print(json.dumps(differences(Path(sys.argv[1]), Path(sys.argv[2]))))
