"""`tfbert-npu push`: a model's directory to a hub repository."""

from __future__ import annotations

from pathlib import Path

import click

import tfbert_npu


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--license", help="Identifier of the license, such as apache-2.0, for the card.")
@click.option("--base-model", help="Repository of the model that this one was made from, for the card.")
@click.option("--private", is_flag=True, default=None, help="A new repository is private.")
@click.option("--revision", help="Branch to commit to.")
@click.option("--overwrite-card", is_flag=True, help="Replace the README.md that the repository has.")
@click.option("--dry-run", is_flag=True, help="Upload nothing; show what would go up.")
def push(
    directory: Path,
    repo: str,
    license: str | None,
    base_model: str | None,
    private: bool | None,
    revision: str | None,
    overwrite_card: bool,
    dry_run: bool,
) -> None:
    """Upload DIRECTORY, a checkpoint or an artifact, with a model card, in one commit.

    The token is that of `hf auth login`, or HF_TOKEN.

    Example: tfbert-npu push out/mine-rk3588 owner/name --license apache-2.0 --dry-run
    """

    click.echo(
        tfbert_npu.push_to_hub(
            directory,
            repo,
            license=license,
            base_model=base_model,
            private=private,
            revision=revision,
            overwrite_card=overwrite_card,
            dry_run=dry_run,
        )
    )
