"""Write constraints.txt and the images' locks from what is installed in this environment: `make lock`."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent
CONTRACT = ("pydantic", "pyarrow", "ase", "numpy")
PROPERTIES = ("matcalc", "pymatgen", "spglib", "phonopy")
MACE = ("mace-torch", "torch", "assyst", "pyxtal", *PROPERTIES, *CONTRACT)
TENSORPOT = (
    *("python-ace", "tensorflow-cpu", "tensorpotential", "tf-keras", "pandas", "scipy", "ruamel.yaml"),
    *PROPERTIES,
    *CONTRACT,
)
WORKER = (
    *("prefect", "fastapi", "sqlalchemy", "pydantic-settings", "docker", "filelock", "tqdm"),
    *("PyYAML", "ruamel.yaml", "matplotlib", "Jinja2", "scipy", *CONTRACT),
)
OLDER_PYTHON = {"async-timeout": "5.0.1"}  # redis, in Prefect's server, asks for it below Python 3.11.3 (Debian 12)
LEFT_OUT = (
    "tensorflow",  # tensorpotential: the CUDA build
    "questionary",  # tensorpotential: dialogues that nobody has
    "plotly",  # pymatgen: figures of phase diagrams
    "lxml",  # pymatgen: files of other programs
    "tensorboard",  # TensorFlow: its server of figures
    "seaborn",  # assyst: its figures
    "pyocse",  # pyxtal: force fields of molecular crystals
    "vasprun-xml",  # pyxtal: files of VASP
)
HEADS = {
    "mace": "# The exact packages of the image `mace`: labelling with torch.\n",
    "tensorpot": "# The exact packages of the image `tensorpot`: data sets, selection, pacemaker, evaluation.\n"
    "# tensorpotential and tf-keras are installed with --no-deps: they ask for the CUDA build of TensorFlow.\n",
    "worker": "# The exact packages of the image `worker`: Prefect, and what flows/ and tasks/ import.\n",
}
CONSTRAINTS = "# Every package of the one environment, exactly: pip install -c constraints.txt. Made by `make lock`.\n"


def closure(roots: tuple[str, ...]) -> dict[str, str]:
    """Canonical name -> version of the roots and of everything they require here, local build labels left out."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset()) for root in roots]
    while waiting:
        name, extras = waiting.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if name in found or name in LEFT_OUT:
            continue
        found[name] = version(name).split("+")[0]
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if _applies(requirement, extras):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    environments = [{**default_environment(), "extra": extra} for extra in ("", *extras)]
    return requirement.marker is None or any(requirement.marker.evaluate(environment) for environment in environments)


def main() -> int:
    """Write the files."""
    pins = {
        "mace": closure(MACE),
        "tensorpot": closure(TENSORPOT),
        "worker": closure(WORKER) | OLDER_PYTHON,
    }
    for image, locked in pins.items():
        lines = "".join(f"{name}=={pin}\n" for name, pin in sorted(locked.items()))
        (REPOSITORY / "containers" / image / "requirements.lock").write_text(HEADS[image] + lines)
        print(f"{image}: {len(locked)} packages")
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = [re.sub(r"\+cpu$", "", line) for line in frozen if not line.startswith(("tensorpotential==", "tf_keras=="))]
    (REPOSITORY / "constraints.txt").write_text(CONSTRAINTS + "\n".join(kept) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
