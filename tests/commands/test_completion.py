"""The script of ``qmmlmm completion``, asked in a shell."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from qmmlmm.commands.completion import SHELLS
from qmmlmm.commands.main import create_parser, main
from qmmlmm.commands.templates import KINDS


@pytest.fixture
def complete(tmp_path, capsys):
    """Return a function that returns what bash offers for the last of some words."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "qmmlmm.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    (tmp_path / "run.toml").touch()
    (tmp_path / "a folder").mkdir()

    def complete(*words):
        quoted = " ".join(f"'{word}'" for word in ("qmmlmm", *words))
        lines = [
            f"source '{script}'",
            f"COMP_WORDS=({quoted})",
            f"COMP_CWORD={len(words)}",
            "_qmmlmm",
            r'printf "%s\n" "${COMPREPLY[@]}"',
        ]
        done = subprocess.run(
            ["bash", "--norc", "-euc", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert not done.stderr, done.stderr
        return set(done.stdout.split("\n")) - {""}

    return complete


def test_the_first_word_is_a_command(complete):
    assert complete("sp") == {"spectrum"}
    assert {"run", "learn", "completion", "--version"} <= complete("")


def test_options_are_those_of_the_command(complete):
    assert complete("run", "--ch") == {"--check"}
    assert "--kind" in complete("new", "-")
    assert "--kind" not in complete("run", "-")


def test_values_of_an_option_are_offered(complete):
    assert complete("new", "x.toml", "--kind", "") == set(KINDS)
    assert complete("completion", "") == set(SHELLS)


def test_other_words_are_files(complete):
    assert complete("run", "ru") == {"run.toml"}


def test_a_command_that_does_not_exist_gets_files(complete):
    assert complete("no-such-command", "ru") == {"run.toml"}


def test_every_command_is_in_the_script(complete):
    (commands,) = (action.choices for action in create_parser()._actions if hasattr(action, "add_parser"))
    assert set(commands) <= complete("")


def test_zsh_runs_the_function_of_bash(capsys):
    main(["completion", "zsh"])
    text = capsys.readouterr().out
    assert text.startswith("autoload -U +X bashcompinit && bashcompinit\n")
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=text, text=True, check=True)


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "fish"])
    assert stopped.value.code == 2
    assert "invalid choice: 'fish'" in capsys.readouterr().err
