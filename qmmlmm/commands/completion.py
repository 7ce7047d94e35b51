"""The command ``qmmlmm completion``: completion of commands, options and files in a shell."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

SHELLS = ("bash", "zsh")
# zsh runs the function of bash.
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """\
# Completion of qmmlmm, by `qmmlmm completion`.
_qmmlmm() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}}
    local options="" choices=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W {commands} -- "$current"))
        return
    fi
    case "$command" in
{cases}
    esac
    case "$command $previous" in
{values}
    esac
    if [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    elif [ -n "$choices" ]; then
        COMPREPLY=($(compgen -W "$choices" -- "$current"))
    else
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _qmmlmm qmmlmm
"""


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``completion`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "completion",
        help="write the completion of commands, options and files for a shell",
        description="Write a script for a shell, which then completes commands, options and files with the tab key.",
        epilog="example: qmmlmm completion bash > ~/.local/share/bash-completion/completions/qmmlmm",
        parents=parents,
    )
    parser.add_argument("shell", choices=SHELLS, help="shell that reads the script")

    def run(options: argparse.Namespace) -> int:
        # By now all commands are there.
        sys.stdout.write(completion_script(commands.choices, options.shell))
        return 0

    parser.set_defaults(run=run)


def completion_script(commands: Mapping[str, argparse.ArgumentParser], shell: str) -> str:
    """Return the script for a shell.

    Parameters
    ----------
    commands : mapping of str to ArgumentParser
        All commands by name.
    shell : {"bash", "zsh"}
    """
    cases, values = [], []
    for name, parser in commands.items():
        options: list[str] = []
        choices = ""
        for action in parser._actions:
            options += [option for option in action.option_strings if option.startswith("--")]
            if action.choices is not None and not action.option_strings:
                choices = f" choices={shlex.quote(' '.join(map(str, action.choices)))}"
            values += list(_values(name, action))
        cases.append(f"        {name}) options={shlex.quote(' '.join(options))}{choices} ;;")
    script = _SCRIPT.format(
        commands=shlex.quote(" ".join([*commands, "--help", "--version"])),
        cases="\n".join(cases),
        values="\n".join(values),
    )
    return (_ZSH if shell == "zsh" else "") + script


def _values(command: str, action: argparse.Action) -> Iterator[str]:
    """Yield the case of each option whose value is one of several words."""
    if action.choices is not None:
        words = shlex.quote(" ".join(map(str, action.choices)))
        for option in action.option_strings:
            yield f"        {shlex.quote(f'{command} {option}')}) choices={words} ;;"
