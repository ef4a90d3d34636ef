"""`farvox profile`: what a network costs, measured on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A network of `farvox models`, or a bundle folder.")],
    size: Annotated[
        tuple[int, int, int] | None, typer.Option("--size", metavar="I J K", help="Voxels of the image.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", help="Channels of the image (default: as in the paper).")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", help="Output classes, background included (default: as in the paper).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="An option of the network.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed passes; the median is printed.")] = 5,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Parameters, multiply-adds and seconds per voxel, peak memory and receptive field of a network."""
    from farvox.cli.common import print_json
    from farvox.errors import UsageError
    from farvox.profiling import profile
    from farvox.recipes import parse_toml_value

    options = {}
    for setting in settings or []:
        key, separator, value = setting.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set {setting}", allowed="option=value, such as --set 'widths=[8, 16]'")
        options[key.strip()] = parse_toml_value(value)
    measured = profile(
        name, size, in_channels=channels, classes=classes, options=options, repeats=repeats, device=device
    )
    if as_json:
        print_json(measured.to_dict())
        return
    for what, text in measured.rows():
        typer.echo(f"{what:16} {text}")
