"""The command line."""

import pytest

from evaluation.report import __main__


@pytest.mark.parametrize("argv, words", [([], "pass the directory"), (["nowhere"], "nowhere is")])
def test_the_script_refuses_in_one_sentence(argv, words):
    with pytest.raises(ValueError, match=words):
        __main__.main(argv)
