"""Every model passes every law that applies to it; which ones apply is pinned, so that none vanishes silently."""

from __future__ import annotations

import pytest

from ancestral.models import MODELS, build
from ancestral.spec import DataSpec
from ancestral.testing import LAWS, check

TINY = DataSpec("image", (1, 3, 4), levels=2, classes=3)
COLOUR = DataSpec("image", (3, 2, 2), levels=2)
DIGITS = DataSpec("image", (1, 8, 8), levels=17)
PHOTO = DataSpec("image", (3, 6, 5), levels=256)
TABLE = DataSpec("vector", (4,))

CASES = {
    "gated-pixelcnn, enumerable": ("gated-pixelcnn", TINY, {}),
    "gated-pixelcnn, by label": ("gated-pixelcnn", TINY, {"conditional": True}),
    "gated-pixelcnn, colour": ("gated-pixelcnn", COLOUR, {}),
    "gated-pixelcnn, photos": ("gated-pixelcnn", PHOTO, {}),
    "gated-pixelcnn, photos by softmax": ("gated-pixelcnn", PHOTO, {"family": "categorical"}),
    "vae, enumerable": ("vae", TINY, {}),
    "vae, logistic": ("vae", TINY, {"decoder": "logistic"}),
    "vae, binned normal": ("vae", DIGITS, {"decoder": "normal"}),
    "vae, photos": ("vae", PHOTO, {"spatial": True}),
    "vae, table": ("vae", TABLE, {}),
    "agave, enumerable": ("agave", TINY, {}),
    "agave, by label": ("agave", TINY, {"conditional": True}),
    "agave, digits": ("agave", DIGITS, {}),
    "agave, colours and resolution": ("agave", PHOTO, {"colours": 16, "factor": 1, "latent": 4}),
    "agave, no auxiliary": ("agave", COLOUR, {"auxiliary": False, "lambda_": 1.0}),
}
EXEMPT = {
    "gated-pixelcnn, enumerable": {"context", "bound"},
    "gated-pixelcnn, by label": {"bound"},
    "gated-pixelcnn, colour": {"context", "bound"},
    "gated-pixelcnn, photos": {"context", "bound"},
    "gated-pixelcnn, photos by softmax": {"context", "bound"},
    "vae, photos": {"bound"},
    "vae, table": {"table"},
    "agave, colours and resolution": {"bound"},
}


@pytest.mark.parametrize("case", CASES)
def test_laws(case: str) -> None:
    name, spec, overrides = CASES[case]
    report = check(build(name, spec, preset="tiny", **overrides))
    report.raise_if_failed()
    assert [outcome.law for outcome in report.outcomes] == list(LAWS)
    assert {outcome.law for outcome in report.outcomes if outcome.status == "not applicable"} == EXEMPT.get(case, set())


def test_every_model_of_the_table_is_put_to_the_laws() -> None:
    assert {name for name, _, _ in CASES.values()} == set(MODELS)


def test_the_laws_are_the_ones_that_the_design_lists() -> None:
    assert set(LAWS) == {"causal", "batch", "context", "stepwise", "normalised", "sampled", "table", "bound"}
