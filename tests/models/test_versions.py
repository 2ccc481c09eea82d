"""Families that need a newer Transformers than the package does say so."""

import pytest
from transformers import __version__

from prumerge.errors import PrumergeError
from prumerge.models import check_version, families, family_of


@pytest.mark.parametrize("installed", ["5.20.0", "5.22.9", "4.99.0"])
def test_an_older_transformers_is_refused_in_a_sentence(installed):
    with pytest.raises(
        PrumergeError, match=rf"'internvl' need Transformers 5.23 .* this is {installed}; install"
    ):
        check_version("internvl", "5.23", installed)


@pytest.mark.parametrize("installed", ["5.23.0", "5.23.0.dev0", "5.100.1", "6.0.0rc1"])
def test_a_newer_one_is_taken(installed):
    check_version("internvl", "5.23", installed)


@pytest.mark.parametrize("name", families())
def test_the_installed_one_suits_every_family(name):
    check_version(name, family_of(name).since, __version__)
