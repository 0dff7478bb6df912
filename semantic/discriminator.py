"""Phase II of training, eq. (14) and (15): a light discriminator and the terms it adds.

The network is the PatchGAN of Isola et al. (CVPR 2017): it says of every 46x46 patch how real it looks. Its
layers are spectrally normalised (Miyato et al., ICLR 2018) rather than batch-normalised: batches of eight
photos make poor statistics, real and reconstructed batches would need different ones, and a bounded
Lipschitz constant bounds the gradient that the decoder receives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from semantic.codec_config import AdversarialConfig
from semantic.processes import Processes

SLOPE = 0.2
# Adam's decay rates for both GAN losses, as in VQGAN.
BETAS = (0.5, 0.9)
# The adaptive weight must not explode where the discriminator is indifferent.
MAX_ADAPTIVE_WEIGHT = 1e4

Form = Literal["log", "hinge"]


class PatchDiscriminator(nn.Module):
    """Pictures ``[B, 3, h, w]`` -> how real each patch looks, logits ``[B, 1, h/8 - 1, w/8 - 1]``.

    Args:
        channels: of the first of three layers; they double from layer to layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [
                spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)),
                nn.LeakyReLU(SLOPE),
            ]
        layers.append(spectral_norm(nn.Conv2d(widths[-1], 1, 4, padding=1)))
        self.body = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits; pictures are float, 0..1, and clipped to that."""
        # Clipped, as a receiver shows them: the decoder could otherwise win with colours beyond white.
        logits: Tensor = self.body(2 * pictures.clamp(0, 1) - 1)
        return logits


def generator_loss(fake: Tensor, form: Form) -> Tensor:
    """L_adv of eq. (14): how far reconstructions are from passing as real.

    "log" is ``-ln D(x_hat)``, Goodfellow's non-saturating form; "hinge" is ``-D(x_hat)``.

    Args:
        fake: logits of reconstructions.
        form: which.
    """
    return functional.softplus(-fake).mean() if form == "log" else -fake.mean()


def discriminator_loss(real: Tensor, fake: Tensor, form: Form) -> Tensor:
    """Eq. (15): ``-ln D(x) - ln(1 - D(x_hat))``, or its hinge form (Lim and Ye 2017).

    Args:
        real: logits of sources.
        fake: logits of reconstructions.
        form: which.
    """
    if form == "log":
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def _as_it_is(values: Tensor) -> Tensor:
    return values


def adaptive_weight(
    distortion: Tensor,
    adversarial: Tensor,
    last_layer: Tensor,
    mean: Callable[[Tensor], Tensor] = _as_it_is,
) -> Tensor:
    """Ratio of the gradients' norms at the decoder's last layer (VQGAN, Esser et al. 2021, eq. 7).

    With it the adversarial term pulls as hard on the decoder as distortion does, whatever their units.

    Args:
        distortion: scalar, weighted sum of the distortion terms.
        adversarial: scalar.
        last_layer: the weights; both scalars depend on them.
        mean: mean of a gradient over the processes that share the batch.

    Returns:
        Scalar without gradient, 0 to :data:`MAX_ADAPTIVE_WEIGHT`.
    """
    (of_distortion,) = torch.autograd.grad(distortion, last_layer, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio = mean(of_distortion).norm() / (mean(of_adversarial).norm() + 1e-4)
    return ratio.clamp(0, MAX_ADAPTIVE_WEIGHT).detach()


class Adversary:
    """The discriminator with its optimiser: phase II's side of a training run.

    Args:
        config: of phase II.
        seed: of its random start; the model's own random numbers are left alone.
        device: where to compute.
        processes: who shares the batch, where it is more than this process.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        seed: int,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        self.config = config
        self.processes = processes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PatchDiscriminator(config.channels)
        self.network.to(device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, betas=BETAS
        )

    def judge(self, reconstructed: Tensor) -> Tensor:
        """The adversarial term for the model; the discriminator stays as it is."""
        self.network.eval().requires_grad_(False)
        return generator_loss(self.network(reconstructed.float()), self.config.form)

    def weight(self, distortion: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
        """Lambda of eq. (14), scalar without gradient."""
        fixed = torch.full((), self.config.weight, device=adversarial.device)
        if not self.config.adaptive:
            return fixed
        mean = _as_it_is if self.processes is None else self.processes.mean
        return fixed * adaptive_weight(distortion, adversarial, last_layer, mean)

    def learn(self, pictures: Tensor, reconstructed: Tensor, rate_share: float) -> dict[str, float]:
        """One step of the discriminator, eq. (15), while the model stays as it is.

        Args:
            pictures: sources, float32 ``[B, 3, h, w]``, 0..1.
            reconstructed: float ``[B, 3, h, w]``; no gradient is passed on.
            rate_share: learning rate as a share of the configured one.

        Returns:
            ``discriminator``, its loss, and ``told_apart``, the share of patches it gets right.

        Raises:
            FloatingPointError: a loss that is not finite; nothing has been changed then.
        """
        self.network.train().requires_grad_(True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate_share
        real, fake = self.network(pictures), self.network(reconstructed.detach().float())
        loss = discriminator_loss(real, fake, self.config.form)
        right = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
        record = {"discriminator": float(loss.detach()), "told_apart": float(right)}
        if self.processes is not None:
            record = self.processes.mean_record(record)
        if not math.isfinite(record["discriminator"]):
            raise FloatingPointError("the discriminator's loss is not finite")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.processes is not None:
            self.processes.average_gradients(self.network)
        self.optimizer.step()
        return record

    def state_dict(self) -> dict[str, Any]:
        """For :meth:`load_state_dict`."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
