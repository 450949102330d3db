"""EU-k: exact unlearning of the last k layers."""

from pydantic import Field
from torch import nn

from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.last_layers import earlier_layers_held
from unlearnkit.train.mixed_batches import train_on_retained
from unlearnkit.train.schedule import Run
from unlearnkit.train.weight_perturbation import mix_with_untrained


@register
class EUk(Recalibrated):
    """Train the last layers from scratch on the retain set; earlier layers stay as they are."""

    info = Info(
        title="EU-k (exact unlearning of the last k layers)",
        cite="Goel et al., 2022, arXiv:2201.06640",
        needs=frozenset({Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "Where the answers must forget a class and the features may stay: the last layer"
            " trained anew leaves memory 0.60 in a perceptron on digits, 0.52 in a network with"
            " batch normalisation (U-LiRA AUC; 0.5 is none). It never reads the forget set."
            " Features that must forget need more `layers`: two of the three there leave 0.50 to"
            " 0.56 of a class, random rows and wrong labels, for a point of test accuracy. All of"
            " them are a short retraining, which `shrink_perturb` with `renew` 1 does at a better"
            " rate."
        ),
        differs=(
            "by default at the recipe's peak learning rate, falling to zero along a cosine, for"
            " 0.15 of the recipe's epochs; published code trains for as long as the original was"
            " trained: the presets. On digits the length changes next to nothing, and two or three"
            " times the rate leave the same memory, answer test rows better by up to 0.3 points,"
            " and push a class 7 to 16 deviations below what retrained models give it",
            "`paper` has the settings of the authors' code. There the rate starts again after 1,"
            " 3, 7, 15 and 31 epochs and stays above 0.005; here it falls to zero once. Their"
            " number of layers is chosen for each network, up to 50 of a ResNet-110",
            "`reference` is how the SCRUB authors ran it, for the original's number of epochs, in"
            " units of the recipe; their last block of a network is several layers here",
            "held layers keep their running statistics, in eval mode; in published code these"
            " follow the data. Dropout in held layers stays on",
            "normalisation that belongs to the last layers starts untrained, too; published code"
            " renews convolutions and linear layers alone",
            "untrained values are those of a new network from the case's factory; the SCRUB"
            " authors reload the original's first ones",
            "layers are counted in the order of registration, which should be that of the data; a"
            " note names them. The cost counts whole passes, though gradients stop where layers"
            " are held",
        ),
        fails=(
            "the features keep the class: on digits a new head on them separates it with the"
            " original's own error of 0.303, where retrained features have 0.471 and untrained"
            " ones 0.408. An audit says LEAKS (`head_probe`), although no row of the class is"
            " answered right",
            "what lower layers have memorised stays: of wrong labels on digits one layer leaves"
            " memory 1.00 in a perceptron and 0.95 with batch normalisation, two layers 0.56"
            " there; of a random tenth 0.68 of 0.77 in the perceptron",
            "a head that was trained for so short a time is less sure: margins of a random tenth"
            " of digits are 6.8 deviations below those of retrained models. On diabetes its error"
            " on retained rows is 0.52, retrained 0.48",
            "with all layers at the default rate test accuracy on digits is 0.943; a short"
            " retraining of the same cost at three times the rate has 0.966",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "run": FineTuneSchedule.exact(
                    lr=0.1,
                    momentum=0.9,
                    weight_decay=5e-5,
                    schedule="cosine",
                    clip_norm=10.0,
                    epochs=62,
                    batch_size=64,
                    augment="flip_crop",
                ),
            },
            "reference": {"batch_norm": "keep", "run": FineTuneSchedule(lr=1.0, share=1.0)},
        },
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    layers: int = Field(1, ge=1)
    """Layers that are trained anew, counted from the output (paper: k); all of them is a short
    retraining. A layer is a module with a weight matrix or kernel, with the normalisation that
    follows it."""

    run: Run = FineTuneSchedule(lr=1.0, share=0.15)
    """How long and how fast to train: a plain run (kind tuning), or a warm restart."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Hold earlier layers, renew the last ones, then descend on the retained rows."""
        with earlier_layers_held(p.model, self.layers, rt, self.id) as held:
            mix_with_untrained(p, 0.0, set(p.model.modules()).difference(held))
            train_on_retained(p, self.run, rt)
        return p.model
