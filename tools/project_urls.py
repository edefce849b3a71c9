"""The addresses in the package's metadata, for hatchling. Those of the repository are made from its name in pyproject.toml."""

import tomllib
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAPER = "https://arxiv.org/abs/2107.02495"


def urls(repository: str) -> dict[str, str]:
    if not repository:
        return {"Paper": PAPER}
    home = f"https://github.com/{repository}"
    return {
        "Paper": PAPER,
        "Source": home,
        "Issues": f"{home}/issues",
        "Changelog": f"{home}/blob/main/CHANGELOG.md",
    }


class ProjectUrls(MetadataHookInterface):
    def update(self, metadata: dict) -> None:
        text = Path(self.root, "pyproject.toml").read_text(encoding="utf-8")
        metadata["urls"] = urls(**tomllib.loads(text)["tool"]["rpm-tutorial"])
