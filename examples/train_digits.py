"""Trains a small convolutional network on scikit-learn's handwritten digits and writes the demo model repository.

Seconds on a CPU. Writes the same network three times: as TorchScript (`digits`, versions 1 and 2), as ONNX
(`digits_onnx`) and as plain weights for a Python model (`digits_python`), and ten held-out scans as PNG files.
"""

import argparse
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
SEED = 0
DRAFT_EPOCHS = 8  # version 1: visibly weaker, so that a change of version shows
FINAL_EPOCHS = 80  # version 2
REQUIRED_ACCURACY = 0.97

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def load_scans() -> tuple[Floats, Floats, Labels, Labels]:
    """Images as FP32 [n, 1, 8, 8] with ink from 0 to 1, and labels; train images, test images, and their labels.

    The 17 grey levels of the scans are rounded to the 256 of a PNG, so that training and serving see the same.
    """
    scans = load_digits()
    grey = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    images = (grey.astype(np.float32) / 255)[:, np.newaxis]
    labels = scans.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return train_images, test_images, train_labels, test_labels


def build_network() -> nn.Sequential:
    """FP32 [n, 1, 8, 8] to one logit per digit, FP32 [n, 10]."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, kernel_size=3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, kernel_size=3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(32 * 4 * 4, 64),
            relu3=nn.ReLU(),
            digit=nn.Linear(64, 10),
        )
    )


def train(images: Floats, labels: Labels, epochs: int) -> nn.Sequential:
    """A network trained from the fixed seed; the same arguments give the same weights.

    Every batch is moved by up to one pixel each way: there are few images, and handwriting is never centred.
    """
    torch.manual_seed(SEED)
    network = build_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loss = nn.CrossEntropyLoss()
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(inputs)), 64):
            down, right = torch.randint(-1, 2, (2,)).tolist()
            moved = inputs[batch].roll((down, right), dims=(2, 3))
            optimizer.zero_grad()
            loss(network(moved), targets[batch]).backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def probabilities(network: nn.Sequential, images: Floats) -> Floats:
    """FP32 [n, 10]."""
    with torch.inference_mode():
        return torch.softmax(network(torch.from_numpy(images)), dim=1).numpy()


def accuracy(network: nn.Sequential, images: Floats, labels: Labels) -> float:
    """The share of images whose most probable digit is the true one."""
    return float((probabilities(network, images).argmax(axis=1) == labels).mean())


def weights_of(network: nn.Sequential) -> dict[str, Floats]:
    """Layer parameters by name, such as `conv1.weight`."""
    return {name: value.numpy() for name, value in network.state_dict().items()}


def write_torchscript(network: nn.Sequential, path: Path) -> None:
    """The network with softmax, as a file that needs none of this program's code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    served = nn.Sequential(OrderedDict(network=network, softmax=nn.Softmax(dim=1)))
    torch.jit.save(torch.jit.script(served.eval()), str(path))


def write_onnx(weights: dict[str, Floats], path: Path) -> None:
    """The network with softmax, written node by node: the exporter of torch would need further packages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "hidden.weight", "hidden.bias"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "digit.weight", "digit.bias"], ["i"], transB=1),
        helper.make_node("Softmax", ["i"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    # An opset and format that every ONNX Runtime since 1.10 reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def write_weights(weights: dict[str, Floats], path: Path) -> None:
    """Plain arrays for the Python model; no pickle inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **weights)


def write_samples(images: Floats, labels: Labels, directory: Path) -> None:
    """The first test image of each digit as an 8-bit grey PNG, and `truth.csv` with one `file,digit` line each."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["file,digit"]
    for digit in range(10):
        image = images[np.flatnonzero(labels == digit)[0], 0]
        name = f"scan_{digit}.png"
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(directory / name, optimize=True)
        lines.append(f"{name},{digit}")
    (directory / "truth.csv").write_text("\n".join(lines) + "\n")


def check_onnx(path: Path, images: Floats, expected: Floats) -> float:
    """The largest difference between what ONNX Runtime and torch answer; SystemExit above 1e-5."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(["probabilities"], {"image": images})
    difference = float(np.abs(np.asarray(answer) - expected).max())
    if difference > 1e-5:
        raise SystemExit(f"{path} differs from the trained network by {difference:.1e}")
    return difference


def main() -> None:
    """Trains, prints the test accuracies and writes the models and the sample images."""
    parser = argparse.ArgumentParser(description="Train the demo models.")
    parser.add_argument("--repository", type=Path, default=HERE / "model_repository")
    parser.add_argument("--samples", type=Path, default=HERE / "data")
    arguments = parser.parse_args()
    repository: Path = arguments.repository

    torch.set_num_threads(1)  # the batches are small: threads would only wait for each other
    train_images, test_images, train_labels, test_labels = load_scans()
    print(f"{len(train_images)} images to train with, {len(test_images)} held out")
    for version, epochs in ((1, DRAFT_EPOCHS), (2, FINAL_EPOCHS)):
        start = time.perf_counter()
        network = train(train_images, train_labels, epochs)
        seconds = time.perf_counter() - start
        score = accuracy(network, test_images, test_labels)
        print(f"version {version}: {epochs} epochs, {seconds:.1f} s, test accuracy {score:.2%}")
        write_torchscript(network, repository / "digits" / str(version) / "model.pt")
    if score < REQUIRED_ACCURACY:
        raise SystemExit(f"version 2 stays below {REQUIRED_ACCURACY:.0%}; its files are not to be served")

    onnx_path = repository / "digits_onnx" / "1" / "model.onnx"
    write_onnx(weights_of(network), onnx_path)
    difference = check_onnx(onnx_path, test_images, probabilities(network, test_images))
    print(f"ONNX Runtime and torch differ by {difference:.1e} at most")
    write_weights(weights_of(network), repository / "digits_python" / "1" / "weights.npz")
    write_samples(test_images, test_labels, arguments.samples)
    print(f"written: {repository}, {arguments.samples}")


if __name__ == "__main__":
    main()
