"""The options of `fusionvl serve`: numbers that cannot be are refused with a sentence, before anything starts."""

import pytest

from fusionvl import cli
from fusionvl.serve.options import parse_serve_arguments


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--port", "99999", "must be a port, from 0 to 65535, not 99999"),
        ("--port", "-1", "must be a port, from 0 to 65535, not -1"),
        ("--answer-seconds", "nan", "must be a finite number"),
        ("--answer-seconds", "inf", "must be a finite number"),
        ("--answer-seconds", "0", "must be more than 0, not 0"),
        ("--answer-seconds", "-3", "must be a finite number and not below 0, not -3"),
        ("--drain-seconds", "nan", "must be a finite number"),
        ("--drain-seconds", "-1", "must be a finite number and not below 0, not -1"),
        ("--memory-gb", "nan", "must be a finite number"),
        ("--memory-gb", "0", "must be more than 0"),
    ],
)
def test_numbers_that_cannot_be(capsys, option, value, reason):
    with pytest.raises(SystemExit) as ended:
        # The model that is not there ends the command, should the number be accepted.
        cli.main(["serve", "/nowhere/at/all", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: {reason}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=option):
        parse_serve_arguments([f"{option}={value}"])


def test_numbers_at_the_edge():
    options = parse_serve_arguments(["--port", "65535", "--drain-seconds", "0", "--answer-seconds", "0.5"])
    assert (options.port, options.drain_seconds, options.answer_seconds) == (65535, 0.0, 0.5)
