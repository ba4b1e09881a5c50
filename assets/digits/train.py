"""Train the shipped sample model: a small CNN on the UCI digits (8x8 pixels, values 0..16).

Not needed to use workbench: its results (digits.onnx, test.npz, calibrate.npz) are in this folder. To make them again,
in an environment outside this repository (torch first: pip then takes the CPU build)::

    python3.11 -m venv /tmp/train && /tmp/train/bin/pip install torch==2.13.0
    /tmp/train/bin/pip install onnx numpy scikit-learn
    /tmp/train/bin/python assets/digits/train.py

Data: ``sklearn.datasets.load_digits``, 1797 samples (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0).
A fifth (360, stratified) is the evaluation set and is never trained on; the calibration sample comes from the
training part.

Model: float32 ``pixels[batch,1,8,8]`` scaled to 0..1 (the recipe's ``preprocess: {scale: 0.0625}`` folds that scaling
into the graph, so that callers send raw pixels) -> float32 ``logits[batch,10]``. Five 3x3 convolutions (batch norm
folded at export), about 7 million multiply-adds a sample: enough work for int8 to pay on a CPU, which a model that
spends its time between operators cannot show.

Seeds, threads and algorithms are fixed: the same torch on the same instruction set gives the same files.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
SEED = 7
SCALE = 1 / 16
EPOCHS = 60
CALIBRATION_SAMPLES = 256
OPSET = 17


def network() -> nn.Sequential:
    """The CNN: [N,1,8,8] in 0..1 to [N,10] logits."""

    def block(inner: int, outer: int) -> list[nn.Module]:
        return [nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32),
        *block(32, 64),
        *block(64, 64),
        nn.MaxPool2d(2),
        *block(64, 128),
        *block(128, 128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def shifted(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by -1..1 pixels both ways, the border filled with 0."""
    padded = nn.functional.pad(batch, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(batch), 2), generator=generator)
    return torch.stack([image[:, r : r + 8, c : c + 8] for image, (r, c) in zip(padded, moves.tolist(), strict=True)])


def train(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    """Adam with a one-cycle rate, light shifts as augmentation."""
    generator = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * -(-len(pixels) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(pixels), generator=generator).split(64):
            loss = nn.functional.cross_entropy(model(shifted(pixels[index], generator)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX with a dynamic batch axis, without stack traces, paths or producer."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        buffer,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )
    proto = onnx.load_from_string(buffer.getvalue())
    del proto.metadata_props[:]
    proto.producer_name, proto.producer_version, proto.doc_string = "", "", ""
    proto.graph.doc_string = ""
    proto.graph.name = "digits"
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def save(path: Path, **arrays: np.ndarray) -> None:
    """An npz whose bytes depend on the arrays only (numpy writes the time of day into its zip entries)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


def main() -> None:
    """Train, export, write the data files, print the accuracy."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=SEED
    )
    model = network()
    train(model, torch.from_numpy(train_x) * SCALE, torch.from_numpy(train_y))
    with torch.no_grad():
        guess = model(torch.from_numpy(test_x) * SCALE).argmax(1).numpy()
    export(model, HERE / "digits.onnx")
    save(HERE / "test.npz", x=test_x, y=test_y)
    save(HERE / "calibrate.npz", x=train_x[:CALIBRATION_SAMPLES])
    print(f"accuracy {np.mean(guess == test_y):.4f} on {len(test_y)} samples")


if __name__ == "__main__":
    main()
