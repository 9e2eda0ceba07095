"""Draw the gradients of networks that others trained, beneath images, score and Bayes direction.

    python scripts/published_networks.py FOLDER [--out docs/images/published-networks.png]

FOLDER holds the weights that results/published/networks.toml names, and cifar10-lossless-test.npz.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import pags
from pags.data import load_data
from pags.score import bayes_direction, score_of

STANDARD = "mean=.485,.456,.406&std=.225"
NETWORKS = {
    "ResNet-56, standard": "resnet56-4bfd9763.th?normalise=imagenet",
    "ResNet-4b, adversarial": "resnet4b.pth?normalise=cifar10",
    "CNN-A, adversarial": "cifar_cnn_a_adv.model?normalise=cifar10",
    "Conv-small, PGD": "cifar_conv_small_pgd.pth?mean=.4914,.4822,.4465&std=.2023,.1994,.2010",
    "Wide, certified": f"cifar_wide.pth?{STANDARD}",
    "Small, certified in l2": f"cifar_small_36px.pth?{STANDARD}&key=state_dict.0",
}
CLASSES, SIGMA = (0, 1, 3, 5, 7, 8), 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description="The gradients of published networks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/published-networks.png"))
    arguments = parser.parse_args()
    data = load_data(f"npz:{arguments.folder / 'cifar10-lossless-test.npz'}")
    images, labels = (
        torch.cat([getattr(part, n) for part in (data.train, data.test)]) for n in ("images", "labels")
    )
    chosen = [int((labels == label).nonzero()[0]) for label in CLASSES]  # the first of each class
    shown, classes, denoiser = images[chosen], labels[chosen], pags.load_denoiser("pags:cifar10")
    rows: dict[str, Any] = {"Bayes direction": bayes_direction(denoiser, shown, SIGMA, classes)}
    for title, spec in NETWORKS.items():
        rows[title] = pags.load_classifier(f"{arguments.folder / spec}", classes=10, size=(32, 32))
    figure = pags.plot_gradients(shown, rows, score_of(denoiser, shown, SIGMA))
    figure.savefig(arguments.out, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
