"""What a built package says on the package index, made from one address: its links, and a README that works there.

Hatchling calls this when it builds (``[tool.hatch.metadata.hooks.custom]`` in ``pyproject.toml``, whose ``repository``
is the one place where the address stands).
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"(!\[[^\]]*\]\()([^)\s]+)|(<img\b[^>]*?\bsrc=\")([^\"]+)")
LINK = re.compile(r"(\]\()([^)\s]+)|(<a\b[^>]*?\bhref=\")([^\"]+)")
ABSOLUTE = re.compile(r"[a-z][a-z+.-]*:|//|#")
INSTALLATION = re.compile(r"(<!-- install -->\n).*?(<!-- /install -->)", re.DOTALL)
"""What the README says of the installation: from a clone in the repository, from the index on the index."""
FROM_INDEX = '```bash\npip install "lightning-viz[cli]"\n```\n'


def links(repository: str, version: str) -> dict[str, str]:
    """The addresses that the index shows beside a release.

    Args:
        repository: address of the repository.
        version: of the release, whose tag is ``v`` and this.
    """
    files = f"{repository}/blob/v{version}"
    return {
        "Repository": repository,
        "Documentation": f"{files}/docs/index.md",
        "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def index_readme(readme: str, repository: str, version: str) -> str:
    """The README with absolute addresses at the release's tag, and the installation from the index.

    Args:
        readme: Markdown, with addresses relative to the repository's root.
        repository: address of the repository.
        version: of the release.
    """
    readme = INSTALLATION.sub(lambda block: block[1] + FROM_INDEX + block[2], readme)
    parts = re.split(r"(^```.*?^```$)", readme, flags=re.DOTALL | re.MULTILINE)  # code stays as it is
    for number in range(0, len(parts), 2):
        for pattern, kind in ((PICTURE, "raw"), (LINK, "blob")):
            parts[number] = pattern.sub(_absolute(f"{repository}/{kind}/v{version}/"), parts[number])
    return "".join(parts)


def _absolute(base: str) -> Any:
    def replace(found: re.Match[str]) -> str:
        before, address = (part for part in found.groups() if part is not None)
        return before + (address if ABSOLUTE.match(address) else urljoin(base, address))

    return replace


class IndexMetadata(MetadataHookInterface):
    """Hatchling's way to ask for the fields that ``pyproject.toml`` calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the links and the README.

        Args:
            metadata: the fields so far; the version is in it or in the file that ``pyproject.toml`` names.
        """
        repository = self.config["repository"].rstrip("/")
        root = Path(self.root)
        version = re.search(r'^__version__ = "(.+)"$', (root / "lightning_viz/__init__.py").read_text(), re.MULTILINE)
        assert version, "lightning_viz/__init__.py has no version"
        readme = index_readme((root / "README.md").read_text(encoding="utf-8"), repository, version[1])
        metadata["urls"] = links(repository, version[1])
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
