"""``uoisc grc-path``: where GNU Radio Companion finds this project's blocks."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from cli.output import OutputError, make_console, make_folder, print_text

BLOCK_FOLDER = Path(__file__).resolve().parent.parent / "blocks" / "grc"
# Below the folder that Companion always reads, so that nothing of the user's is among our links.
_LINK_FOLDER_NAME = "uoisc"
_BLOCK_FILES = "*.block.yml"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("grc-path")(grc_path)


def grc_path(
    install: Annotated[
        bool,
        typer.Option("--install", help="Link the blocks into Companion's own folder, for good."),
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print what the blocks are, as Markdown, instead.")
    ] = False,
) -> None:
    """Print the folder of the GNU Radio Companion blocks, for GRC_BLOCKS_PATH."""
    if reference:
        from cli.grc_reference import reference_markdown

        print_text(reference_markdown(BLOCK_FOLDER))
        return
    if install:
        folder = link_blocks(_companion_folder() / _LINK_FOLDER_NAME)
        make_console().print(f"blocks linked in {folder}; remove it to undo this", markup=False)
    print_text(str(BLOCK_FOLDER))


def _companion_folder() -> Path:
    """The user's folder that Companion searches without being told (GRC_HIER_PATH, ~/.grc_gnuradio)."""
    from gnuradio.grc.core.Config import Config

    return Path(Config.hier_block_lib_dir)


def link_blocks(folder: Path) -> Path:
    """Fill a folder with links to the block files; links to files that are gone are taken away.

    Raises:
        OutputError: the folder cannot be made or written, or holds files of that name that are no links.
    """
    make_folder(folder)
    for old in folder.glob(_BLOCK_FILES):
        if not old.is_symlink():
            raise OutputError(f"{old}: expected a link made by this command, found a file")
    try:
        for file in BLOCK_FOLDER.glob(_BLOCK_FILES):
            new = folder / f".{secrets.token_hex(8)}.part"
            new.symlink_to(file)
            new.replace(folder / file.name)
        for link in folder.glob(_BLOCK_FILES):
            if not link.exists():
                link.unlink()
    except OSError as error:
        raise OutputError(f"{folder}: cannot link the blocks: {error.strerror}") from error
    return folder
