"""How each function of `estimators` is called with arguments, good and bad; a part of `fuzz_calls.FUZZED`."""

from fuzz import distribution, fuzzed, latents, more, number, one_of, scores, size, square_scores
from fuzz_answers import estimate, same_shape, surrogate

import rpm_tutorial as rpm
from rpm_tutorial import estimators

TABLE = {"log_f": scores, "q_joint": distribution("n", "m")}
BATCH = {"log_f": square_scores, "q_joint": one_of(None)}
KEPT = number(0.99, 0.5, 1.0)
UNPAIRED = {f"unpaired {name}": getattr(rpm, name) for name in ("infonce", "donsker_varadhan", "nwj")}
READ = {
    "unpaired donsker_varadhan": "DV",
    "unpaired nwj": "NWJ",
    "read by nwj": "JS",
    "smile": "SMILE",
    "plug_in": "PC",
}  # the right answer's name, and the estimator's


def both(function, right, **arguments):
    """Calls with a table and with a batch."""
    return fuzzed(function, right, **TABLE, **arguments) | fuzzed(function, right, **BATCH, **arguments)


def _unpaired(name, log_f, q_joint):
    return estimators.unpaired(UNPAIRED[name])(log_f, q_joint)


def _read(name, log_f, q_joint):
    return estimators.ESTIMATORS[READ[name]].estimate(log_f, q_joint)


ESTIMATOR_CALLS = {
    **{
        f"estimators.{name}": both(getattr(estimators, name), estimate(name))
        for name in ("jensen_shannon", "density_ratio_fitting", "plug_in")
    },
    "estimators.smile": both(estimators.smile, estimate("smile"), clip=number(5.0, 0.1, 300.0, float("inf"))),
    "estimators.infonce_anchor": fuzzed(
        estimators.infonce_anchor, estimate("anchor"), **TABLE, nu=number(1.0, 0.0, 0.3, 50.0), k=size(1, 2, 3)
    )
    | fuzzed(estimators.infonce_anchor, estimate("anchor"), **BATCH, nu=number(1.0, 0.0, 0.3, 50.0), k=size(1, 2, 3))
    | fuzzed(estimators.infonce_anchor, estimate("anchor"), **BATCH, nu=number(1.0, 0.0, 0.3), k=one_of(None)),
    "estimators.unpaired": both(_unpaired, estimate(), name=one_of(*UNPAIRED)),
    "estimators.Estimator": both(_read, estimate(), name=one_of(*READ)),
    "estimators.stein_score": fuzzed(estimators.stein_score, same_shape, x=latents(), kept=KEPT)
    | fuzzed(estimators.stein_score, same_shape, x=more(latents()), kept=KEPT),
    "estimators.mige": fuzzed(estimators.mige, surrogate, z=latents("n", "d"), z_prime=latents("n", "m"), kept=KEPT)
    | fuzzed(estimators.mige, surrogate, z=more(latents("n", "d")), z_prime=more(latents("n", "m")), kept=KEPT),
}
