"""DFT stress beside the teacher's on the same structures: its unit, its sign and the order of its six numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from containers.arrays import Floats, Mask
from containers.contract import BadInput
from containers.tensorpot.baseline.dft_agreement import FEWEST, PROPORTIONAL, SLOPES, Both, listed

REAL_STRESS_eV_per_A3 = 0.005
"""Root mean square of three components (0.8 GPa) from which the teacher's stress shows a unit. Good teachers are wrong
by about as much."""
EXPLAINED = 0.5
"""Another unit or order explains the numbers when this share of the teacher's stress is left, and this share of what
is left of the numbers as they are."""
FAR = 30.0
"""Stress so many times the teacher's is in another unit, also where it is not in proportion. GPa are 160 times."""
PRESSURES = {
    "Pa": 6.2415091e-12, "bar": 6.2415091e-7, "MPa": 6.2415091e-6, "kBar": 6.2415091e-4, "GPa": 6.2415091e-3,
}  # fmt: skip
UNITS = {**PRESSURES, "meV/Å³": 1e-3, "Rydberg/Bohr³": 91.8157, "Hartree/Bohr³": 183.6315}
"""eV/Å³ in one of each."""
ORDERS = {"xx yy zz xy yz zx (VASP)": (1, 2, 0), "xx yy zz xy xz yz (LAMMPS)": (2, 1, 0)}
"""Order of six numbers -> which of its last three are yz, xz and xy."""
TRIANGLES = {"xx xy xz yy yz zz": (0, 3, 5, 4, 2, 1), "xx xy yy xz yz zz": (0, 2, 5, 4, 3, 1)}
"""Order of six numbers -> places of ASE's xx yy zz yz xz xy among them."""
MANY = 0.2
"""Share of the frames with real stress from which those of another sign are more than a teacher's errors."""
OTHER_SIGN = "eV/Å³ with the other sign (positive under pressure)"
ORDERED = "are in the order {}, as it seems. Give xx yy zz yz xz xy, or nine numbers."
GIVE = "Give eV/Å³ with ASE's sign (positive under tension) throughout, or set dft.stress_key: null"


def check_stress(both: Sequence[Both]) -> list[str]:
    """Warn of frames whose stress may have the other sign; what is certain is refused.

    Unit and sign are judged by xx, yy and zz, for each file and then for each frame; frames without the teacher's
    stress are left out.

    Raises:
        BadInput: the first file whose stress is in another unit, of the other sign or in another order, or was not
            computed, as a whole or in some frames.
    """
    warnings = list[str]()
    files: defaultdict[str, list[Both]] = defaultdict(list)
    for one in both:
        if "stress" in one.atoms.calc.results and one.teacher.get("stress") is not None:
            files[one.atoms.info["source"]].append(one)
    for source, ones in files.items():
        dft = np.array([one.atoms.calc.results["stress"] for one in ones], dtype=float).reshape(-1, 6)
        teacher = np.array([one.teacher["stress"] for one in ones], dtype=float).reshape(-1, 6)
        volumes = np.array([one.atoms.get_volume() for one in ones])
        real = _real(teacher[:, :3])
        if zero := [one for one, stress, judged in zip(ones, dft, real, strict=True) if judged and not stress.any()]:
            raise BadInput(
                f"{source}: the stress of {len(zero)} frames is exactly zero ({listed(zero)}), where the teacher's is"
                f" not: it was not computed. {GIVE}, or leave it out of these frames."
            )
        triangles = {name: dft[real][:, places] for name, places in TRIANGLES.items()}
        if real.sum() >= FEWEST and (order := _explaining(triangles, dft[real], teacher[real])):
            raise BadInput(f"{source}: the six numbers of its stress {ORDERED.format(order)}")
        if fault := _unit(dft[:, :3], teacher[:, :3], volumes):
            raise BadInput(f"{source}: its stress {fault}. {GIVE}.")
        if order := _order(dft[:, 3:], teacher[:, 3:]):
            raise BadInput(f"{source}: the six numbers of its stress {ORDERED.format(order)}")
        warnings += _single_frames(source, ones, dft[:, :3], teacher[:, :3], volumes)
    return warnings


def _single_frames(source: str, ones: Sequence[Both], dft: Floats, teacher: Floats, volumes: Floats) -> list[str]:
    """Warn of frames of another sign than the rest; refuses frames in another unit, and many of another sign.

    Args:
        dft, teacher: xx yy zz of each structure, [n, 3].
    """
    guesses, real = _guesses(volumes), np.flatnonzero(_real(teacher))

    def named(places: Sequence[int]) -> str | None:
        mine = dft[places]
        return _explaining({name: mine * size[places] for name, size in guesses.items()}, mine, teacher[places])

    large = [place for place in real if np.divide(*_lengths(np.array([dft[place], teacher[place]]))) >= FAR]
    found = {
        "large": [place for place in large if named([place])],
        "sign": [place for place in real if named([place]) == OTHER_SIGN],
    }
    warnings = list[str]()
    for kind, places in found.items():
        name = (named(places) if places else None) or "another unit"
        finding = f"{source}: the stress of {len(places)} of {len(ones)} frames looks like {name}{_size(name)}"
        finding += f" ({listed([ones[place] for place in places])})"
        if places and (kind == "large" or (len(places) >= FEWEST and len(places) >= MANY * len(real))):
            raise BadInput(f"{finding}. {GIVE}.")
        warnings += [f"{finding}; the teacher may also be wrong there"] if places else []
    return warnings


def _unit(dft: Floats, teacher: Floats, volumes: Floats) -> str | None:
    """Return the words of a message for another unit or sign; None where nothing shows one.

    Args:
        dft, teacher: xx yy zz of each structure, [n, 3].
        volumes: Å³, [n].
    """
    real = _real(teacher)
    if real.any():
        found, expected = dft[real], teacher[real]
        common = (found * expected).sum(axis=1)
        factor = float(np.median(np.square(found).sum(axis=1) / np.where(common, common, np.inf)))  # DFT's is exact
        times = f"is {factor:.4g} times the teacher's on the same structures"
        guesses = _guesses(volumes[real])
        if name := _explaining({name: found * size for name, size in guesses.items()}, found, expected):
            if np.ptp(guesses[name]) or guesses[name][0] != -1 or len(found) >= FEWEST:  # few frames show no sign
                return f"{times}; it looks like {name}{_size(name)}"
        elif len(found) >= FEWEST and not SLOPES[0] <= factor <= SLOPES[1]:
            lengths = np.linalg.norm(found) * np.linalg.norm(expected)
            if lengths > 0 and abs(np.sum(found * expected)) >= PROPORTIONAL * lengths:
                return times
    largest = float(np.median(_lengths(dft) / np.maximum(_lengths(teacher), np.sqrt(3) * REAL_STRESS_eV_per_A3)))
    if len(dft) < FEWEST or largest < FAR:
        return None
    nearest = min(PRESSURES, key=lambda name: abs(np.log(PRESSURES[name] * largest)))
    return (
        f"is some {largest:,.0f} times as large as the teacher's on the same structures and not in proportion to it;"
        f" the nearest unit of pressure is {nearest}{_size(nearest)}"
    )


def _guesses(volumes: Floats) -> dict[str, Floats]:
    """Return for each kind of numbers the factors that make eV/Å³ with ASE's sign of them, [n, 1]."""
    per_volume = 1 / volumes[:, None]
    ones = np.ones_like(per_volume)
    return {
        OTHER_SIGN: -ones,
        "a virial in eV (minus stress times volume)": -per_volume,
        "stress times volume in eV": per_volume,
        **{unit: ones * size for unit, size in UNITS.items()},
        **{f"{unit} with the other sign (positive under pressure)": -ones * size for unit, size in UNITS.items()},
    }


def _size(name: str) -> str:
    unit = name.split(" ")[0]
    return f" (1 {unit} = {UNITS[unit]:.6g} eV/Å³)" if unit in UNITS else ""


def _order(dft: Floats, teacher: Floats) -> str | None:
    """Return the order in which the last three numbers agree with the teacher's yz xz xy; None where the given does."""
    real = _real(teacher)
    if real.sum() < FEWEST:
        return None
    found, expected = dft[real], teacher[real]
    return _explaining({name: found[:, places] for name, places in ORDERS.items()}, found, expected)


def _explaining(guesses: Mapping[str, Floats], found: Floats, expected: Floats) -> str | None:
    """Return the guess that most structures agree with, if it leaves EXPLAINED of what the plain numbers leave."""

    def left(guess: Floats) -> float:
        """Return the median over the structures of the difference as a share of what is expected."""
        return float(np.median(_lengths(guess - expected) / _lengths(expected)))

    shares = {name: left(guess) for name, guess in guesses.items()}
    best = min(shares, key=shares.__getitem__)
    return best if shares[best] < EXPLAINED * min(1.0, left(found)) else None


def _real(teacher: Floats) -> Mask:
    return np.asarray(_lengths(teacher) > np.sqrt(3) * REAL_STRESS_eV_per_A3)


def _lengths(rows: Floats) -> Floats:
    return np.asarray(np.linalg.norm(rows, axis=1))
