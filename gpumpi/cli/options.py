"""The command line's options, made from the fields of :mod:`gpumpi.config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gpumpi.config import option_fields

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_options", "options_table"]

_TABLE_HEAD = """# Options

Made from the fields in `gpumpi/config.py` by `python -m gpumpi.cli.options`.
Each option can be given in four ways; an argument goes before the environment, that
before Dask's configuration, that before the default. As keyword arguments of
`gpumpi.initialize()` options are written with underscores.

| command line | environment | Dask's configuration | default | meaning |
|---|---|---|---|---|
"""


def add_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command one option per field; None means not given.

    Values stay text here: :func:`gpumpi.config.resolve` converts those of all four
    sources in one place.
    """
    for item in reversed(list(option_fields())):
        name = item.name.replace("_", "-")
        about = item.metadata
        if about["switch"]:
            off = about["negative"]
            option = click.option(
                f"--no-{name}" if off else f"--{name}",
                item.name,
                is_flag=True,
                flag_value=not off,
                type=bool,
                default=None,
                help=about["help"],
            )
        else:
            default = "" if item.default in (None, ()) else f" [{item.default}]"
            option = click.option(
                f"--{name}",
                item.name,
                metavar=about["metavar"],
                default=None,
                help=about["help"] + default,
            )
        function = option(function)
    return function


def options_table() -> str:
    """Build the page docs/options.md."""
    lines = []
    for item in option_fields():
        name = item.name.replace("_", "-")
        about = item.metadata
        spelled = f"--no-{name}" if about["negative"] else f"--{name}"
        if about["metavar"]:
            spelled += f" {about['metavar']}".replace("|", "\\|")
        shown = _shown(item.default)
        meaning = about["help"].replace("|", "\\|")
        lines.append(
            f"| `{spelled}` | `GPUMPI_{item.name.upper()}` | `gpumpi.{name}` | {shown} "
            f"| {meaning} |\n"
        )
    return _TABLE_HEAD + "".join(lines)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return "-" if default in (None, ()) else f"{default}"


if __name__ == "__main__":
    click.echo(options_table(), nl=False)
