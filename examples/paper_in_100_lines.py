"""The paper in a hundred lines: which of these models has perceptually aligned gradients, and why?

A sweep of l2-adversarial trainings on scikit-learn's digits. For each model: is it accurate, is it more
robust off the data manifold than on it, does its gradient lie on the manifold, does it look like the score?

    python examples/paper_in_100_lines.py            # about a minute on two cores
    python examples/paper_in_100_lines.py --quick    # a few seconds, numbers without meaning
"""

import sys

import torch

import pags
from pags import manifold, measure, score, training
from pags.classifiers.build import build_classifier

QUICK = "--quick" in sys.argv
STRENGTHS = (0.0, 1.0) if QUICK else (0.0, 0.3, 0.6, 1.0, 1.5, 2.5)
SIGMA = 0.5  # noise level of the score, in EDM's unit
NORM = 0.5  # l2 norm of the perturbations, for pixels in [0, 1]
SEED = 0


def epochs(number: int) -> int:
    return 1 if QUICK else number


def main() -> None:
    data = pags.load_data("digits")
    images, test = data.train, data.test if not QUICK else data.test.take(slice(0, 32))
    torch.manual_seed(SEED)  # initial weights; everything else is drawn from named generators

    # Section 4: the data manifold is the image of an autoencoder's decoder, its tangent space at an image is
    # spanned by the columns of the decoder's Jacobian there.
    autoencoder = manifold.Autoencoder(images.shape, latent=16, widths=(32, 64))
    plan = pags.Plan(epochs=epochs(60), optimizer="adam", learning_rate=2e-3, weight_decay=0)
    pags.fit(autoencoder, manifold.Reconstruction(), images, plan, seed=SEED)
    basis, _ = manifold.decoder_tangent(autoencoder, test.images)  # (n, d, k), orthonormal columns

    # Section 4: the score of a class follows from a denoiser, (D(x, σ) − x) / σ² in its coordinates.
    denoiser = score.UNetDenoiser(images.shape[0], classes=len(images.classes))
    plan = pags.Plan(epochs=epochs(40), optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.99)
    pags.fit(denoiser, score.Denoising(), images, plan, seed=SEED)
    reference = measure.Reference.of(score.score_of(denoiser, test.images, SIGMA, test.labels))
    floor = reference.floor(torch.Generator().manual_seed(SEED)).mean()
    other = score.IdealDenoiser(images.images, images.labels)  # a second estimate of the same score
    ideal = score.score_of(other, test.images, SIGMA, test.labels)
    ceiling = reference.similarity(ideal).mean()
    print(f"1 − LPIPS with the score: floor (noise) {floor:.3f}, ceiling (ideal denoiser) {ceiling:.3f}\n")

    mean, std = images.statistics()
    print("epsilon  accuracy  off/on   rho2  1 − LPIPS  cosine")
    for strength in STRENGTHS:
        # B.1, objective 4: cross-entropy at the worst image that l2-PGD finds within epsilon.
        model = build_classifier("small-resnet", images.shape[0], len(images.classes), mean=mean, std=std)
        objective = training.make_objective("pgd", strength, attack_steps=7)
        pags.fit(model, objective, images, pags.Plan(epochs=epochs(15), learning_rate=0.1), seed=SEED)
        accuracy = (model.eval()(test.images).argmax(1) == test.labels).float().mean()

        # Figure 3, top: how much the output changes on and off the manifold, at equal norm.
        draws = torch.Generator().manual_seed(SEED)
        change = measure.equal_norm(model, test.images, basis, [NORM], draws=draws)

        # Definition 2: the share of the gradient's energy that is not in the tangent space.
        gradient = measure.input_gradient(model, test.images, "logit", test.labels)
        rho2 = measure.off_manifold_share(gradient, basis)

        # Figure 3, bottom: does the gradient look like the score?
        similarity, cosine = reference.similarity(gradient), reference.cosine(gradient)
        ratio = change.off.mean() / change.on.mean()
        print(
            f"{strength:7g}  {accuracy:8.3f}  {ratio:6.3f}  {rho2.nanmean():5.3f}"
            f"  {similarity.mean():9.3f}  {cosine.mean():6.3f}"
        )


if __name__ == "__main__":
    main()
