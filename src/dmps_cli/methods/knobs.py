"""The table of knobs: what can be turned, and what a value may be."""

from __future__ import annotations

from dataclasses import dataclass

from dmps_cli.checks import real


# --- Knobs: what can be turned, and what a value may be
@dataclass(frozen=True, kw_only=True)
class Knob:
    """A row of KNOBS: how a knob is called and explained on the command line."""

    option: str
    metavar: str
    help: str

    @property
    def label(self) -> str:
        """Its name in tables and JSON: the option's, as an identifier."""
        return self.option.lstrip("-").replace("-", "_")


SCORE_AT = ("x0", "x_t", "sample")
GAMMAS = ("1", "sqrt")
GUIDANCE = ("published", "bayes")
X_INITS = ("inverse", "adjoint")
WORDS = ("score_at", "gamma", "guidance", "x_init")
"""Knobs whose values are words, 1 among them; the others are numbers."""

MAX_MEAN_OF = 1000

KNOBS = {
    "weight": Knob(option="--lambda", metavar="X", help="Weight of the likelihood score."),
    "score_at": Knob(
        option="--score-at",
        metavar="|".join(SCORE_AT),
        help="Where dmps takes its likelihood: at x0, the measurement's noise counted, for few evaluations; at x_t "
        "before the prior's step, as the paper has it; or at the sample after it, as the authors' code has it.",
    ),
    "variance_factor": Knob(
        option="--variance-factor",
        metavar="X",
        help="dmps at x0: the variance that x0 is given around its estimate, in units of (sigma / alpha)^2.",
    ),
    "cap": Knob(
        option="--cap",
        metavar="X|none",
        help="Largest factor by which one likelihood step may move a measured mode towards the data (above 1 it "
        "overshoots); none: as the paper has it.",
    ),
    "zeta": Knob(
        option="--zeta",
        metavar="X",
        help="dps: length of the step along the gradient, as its authors have it, in place of a line search; diffpir: "
        "share of the noise that is drawn afresh, 0 to 1.",
    ),
    "prior_weight": Knob(
        option="--prior-weight", metavar="X", help="diffpir: weight of the prior against the measurement, its lambda."
    ),
    "guidance": Knob(
        option="--guidance",
        metavar="|".join(GUIDANCE),
        help="pgdm: how far a step moves: by the whole guidance, as published, or by what Bayes' rule gives a step of "
        "its length.",
    ),
    "eta": Knob(
        option="--eta", metavar="X", help="Share of fresh noise where nothing was measured, 0 (none) to 1 (ancestral)."
    ),
    "eta_y": Knob(
        option="--eta-y", metavar="X", help="dmps at x0: share of fresh noise where something was measured, 0 to 1."
    ),
    "mean_of": Knob(
        option="--mean-of",
        metavar="K",
        help="dmps at x0: the mean of K samples, each of one K-th of the evaluations, in place of one sample.",
    ),
    "gamma": Knob(
        option="--gamma",
        metavar="|".join(GAMMAS),
        help="Weight of the score: 1, or sqrt(s / (s^2 + (1 - s)^2)), s the share of data.",
    ),
    "x_init": Knob(
        option="--x-init",
        metavar="|".join(X_INITS),
        help="ot-ode: the picture that it begins with: a regularised inverse of the measurement, or its adjoint A^T y.",
    ),
}


NON_NEGATIVE = real(0.0)
SHARE = real(0.0, 1.0)
POSITIVE = real(0.0, above=True)
