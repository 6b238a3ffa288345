"""The options of `fusionvl serve`: what cannot be is refused with a sentence, before anything starts."""

import argparse

import pytest

from fusionvl import cli
from fusionvl.engine.sources import shipped_model
from fusionvl.serve.commands import add_serve_command, parse_model, settings_from
from fusionvl.serve.settings import Limits, read_api_key

KEY = "a-long-enough-key-1"


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_serve_command(parser)
    return parser.parse_args(arguments)


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
        ("--max-waiting", "0", "must be at least 1, not 0"),
        ("--max-new-tokens", "0", "must be at least 1, not 0"),
    ],
)
def test_numbers_that_cannot_be(capsys, option, value, reason):
    with pytest.raises(SystemExit) as ended:
        # The model that is not there ends the command, should the number be accepted.
        cli.main(["serve", "/nowhere/at/all", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: {reason}" in capsys.readouterr().err


def test_numbers_at_the_edge():
    options = parsed("--port", "65535", "--drain-seconds", "0", "--answer-seconds", "0.5")
    assert (options.port, options.drain_seconds, options.answer_seconds) == (65535, 0.0, 0.5)


def test_the_defaults_are_those_of_the_limits():
    assert settings_from(parsed()).limits == Limits()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{tmp}/nothing"], "There is no folder {tmp}/nothing"),
        (["--api-key-file", "{tmp}/keys"], "cannot be read"),
        (["--host", "host.invalid", "--allowed-host", "x"], "cannot listen at host.invalid"),
        (["--host", "0.0.0.0"], "add --api-key-file PATH, or --allowed-host NAME"),
        (["--host", "::"], "add --api-key-file PATH, or --allowed-host NAME"),
        (["--host", "127.0.0.1.example"], "add --api-key-file PATH, or --allowed-host NAME"),
        (["--page-for", "localhost:8000"], "begins with http:// or https://"),
        (["--page-for", "http://"], "begins with http:// or https://"),
        (["--page-for", "http://127.0.0.1:9", "--host", "0.0.0.0"], "--allowed-host NAME"),
        (["{tmp}", "--page-for", "http://127.0.0.1:9"], "leave out MODEL"),
        (["--dtype", "float32", "--page-for", "http://127.0.0.1:9"], "leave out --dtype"),
        (["--api-key-file", "{tmp}/keys", "--page-for", "http://127.0.0.1:9"], "leave out --api-key-file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_it_with_a_sentence(capsys, tmp_path, arguments, reason):
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    assert cli.main(["serve", *arguments, "--port", "0"]) == 2
    captured = capsys.readouterr()
    assert reason.format(tmp=tmp_path) in captured.err
    assert captured.err.count("\n") == 1


def test_who_may_call_the_server_by_which_name(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert settings_from(parsed("--host", host)).allowed_hosts == ("127.0.0.1", "localhost", "[::1]", host)
    named = settings_from(parsed("--host", "0.0.0.0", "--allowed-host", "a.example", "--allowed-host", "b.example"))
    assert named.allowed_hosts == ("a.example", "b.example")
    with_key = settings_from(parsed("--host", "0.0.0.0", "--api-key-file", str(keys)))
    assert (with_key.allowed_hosts, with_key.api_key) == ((), KEY)


def test_names_of_models(tmp_path):
    folder = tmp_path / "big"
    folder.mkdir()
    assert parse_model(None) == ("nano", str(shipped_model()))
    assert parse_model(str(folder)) == ("big", str(folder))
    assert parse_model(f"small={folder}") == ("small", str(folder))
    assert parse_model("starriver030515/FUSION-X") == ("FUSION-X", "starriver030515/FUSION-X")
    for wrong in ("a b=/x", "=/x", "name=", "../=x", "/"):
        with pytest.raises(ValueError, match="NAME=PATH"):
            parse_model(wrong)


def test_the_file_of_the_key(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n {KEY} \n")
    assert read_api_key(path) == KEY
    for content, reason in (
        (b"short\n", "fewer than 16"),
        (b"# none\n", "holds 0 API keys"),
        (b"a-long-enough-key-1\na-long-enough-key-2\n", "holds 2 API keys"),
        (b"\xff\xfe", "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read_api_key(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_api_key(tmp_path / "missing")
