"""What pyproject.toml cannot say: the configs and policies of a checkout are installed inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithShipped(build_py):
    """Copies them where racer/core/shipped.py looks; an editable installation finds them in the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "racer" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for file in self.shipped():
            place = target / file.relative_to(ROOT).as_posix().removeprefix("scripts/sim/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)

    def shipped(self) -> list[Path]:
        """Return the files: configs, and policies with a card (runs have none)."""
        files = sorted((ROOT / "scripts/sim/configs").glob("*.py"))
        for card in sorted((ROOT / "policies").glob("*/README.md")):
            files += [card, *sorted(card.parent.glob("checkpoint_*/manifest.json"))]
            files += sorted(card.parent.glob("checkpoint_*/policy.safetensors"))
        return files


setup(cmdclass={"build_py": BuildWithShipped})
