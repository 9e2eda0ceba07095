"""Make the networks that ship with the package, in src/pags/shipped, from a study on CIFAR-10 (JPEG).

    python scripts/ship_networks.py STUDY --data folder:cifar10-jpeg --networks standard 'pgd 0.25' …

Weights are stored in half precision; what `shipped.json` says of each network was measured of the stored one.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import pags
from pags.auditing.columns import gradients
from pags.classifiers.modes import predict
from pags.data.imageset import ImageSet
from pags.experiments.cache import described
from pags.experiments.classifiers import network_of
from pags.experiments.experiment import Experiment, first_of_each_class
from pags.experiments.settings import ExperimentSettings
from pags.score.denoiser import bayes_direction
from pags.shipped import FOLDER
from pags.store import Store

SIGMA, DOZEN = 0.5, 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the networks that ship with the package.")
    parser.add_argument("study", type=Path, help="output folder of pags reproduce")
    parser.add_argument("--data", required=True, help="the images of the study, as folder:PATH")
    parser.add_argument("--networks", nargs="+", required=True, help="names of models of the study")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    study, out = Store(arguments.study), Store(arguments.out)
    settings = ExperimentSettings(**study.read_record("records/sweep.json")["settings"])
    experiment = Experiment(settings.with_(data=arguments.data), study)
    test = experiment.data.test
    dozen = test.take(first_of_each_class(test, DOZEN))
    pixels = (dozen.images * 255).round().to(torch.uint8)
    out.write_tensors("images.safetensors", {"images": pixels, "labels": dozen.labels})
    denoiser = experiment.estimators.denoiser.thing
    out.write_tensors("denoiser-cifar10.safetensors", halved(denoiser), described(denoiser))
    subjects = {
        f"{objective} {strength:g}" if strength else "standard": experiment.model(objective, strength)
        for objective, strength in experiment.subjects()
    }
    for name in arguments.networks:
        network = network_of(subjects[name])
        stored = f"cifar10-{name.replace(' ', '-')}.safetensors"
        training = {"recipe": subjects[name].about}
        out.write_tensors(stored, halved(network), described(network) | training)
    facts = {path.stem: measured(f"{path}", test, dozen) for path in sorted(out.root.glob("cifar10-*"))}
    out.write_record("shipped.json", {"sigma": SIGMA, "images": len(test), "networks": facts})
    print(json.dumps(facts, indent=1))


def halved(network: nn.Module) -> dict[str, Tensor]:
    """The weights in half precision."""
    return {n: w.half() if w.is_floating_point() else w for n, w in network.state_dict().items()}


def measured(spec: str, test: ImageSet, dozen: ImageSet) -> dict[str, object]:
    """Accuracy on the study's test images; and on the dozen the cosine of the gradient of the own class's
    logit with the Bayes direction."""
    model, denoiser = pags.load_classifier(spec), pags.load_denoiser("pags:cifar10")
    correct = predict(model, test.images).argmax(1) == test.labels
    target = pags.measure.get_target("logit")
    gradient = gradients(model, dozen.images, {"logit": (target, dozen.labels)})["logit"]
    bayes = bayes_direction(denoiser, dozen.images, SIGMA, dozen.labels)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(1), bayes.flatten(1))
    return {"accuracy": round(float(correct.float().mean()), 4), "cosine": round(float(cosine.mean()), 4)}


if __name__ == "__main__":
    main()
