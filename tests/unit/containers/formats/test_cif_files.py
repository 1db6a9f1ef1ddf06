"""CIF: ordered structures are read; disorder, however it is written, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import read, write

from containers.contract import BadInput
from containers.formats.reading import read_frames

CIF = """data_cuau
_cell_length_a 3.9
_cell_length_b 3.9
_cell_length_c 3.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_disorder_group
Cu1 Cu 0.0 0.0 0.0 {0} {1}
Au1 Au {2} {2} {2} {3} {4}
"""


def symbols(folder: Path, *values: object, name: str = "pool.cif") -> list[str]:
    (folder / "staged").write_text(CIF.format(*values))
    (folder / "work").mkdir(exist_ok=True)
    (frame,) = read_frames(folder / "staged", name, folder / "work")
    return list(frame.atoms.symbols)


@pytest.mark.parametrize("occupancy", ["1", "1.0", "1.0(2)", "."])
@pytest.mark.parametrize("name", ["pool.cif", "outcar-like.cif", "POSCAR.cif"])
def test_an_ordered_structure(tmp_path: Path, occupancy: str, name: str) -> None:
    assert symbols(tmp_path, occupancy, ".", 0.5, occupancy, ".", name=name) == ["Cu", "Au"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.5, ".", 0.0, 0.5, "."), "site Cu1 has the occupancy 0.5: the structure is disordered"),
        ((1, ".", 0.5, 0.9, "."), "site Au1 has the occupancy 0.9"),
        ((1, ".", 0.5, "?", "."), "site Au1 has the occupancy ?"),
        ((1, ".", 0.0, 1, "."), "two atoms are at one place"),
        ((1, 1, 0.5, 1, 2), "atoms are in 2 groups of disorder"),
    ],
)
def test_disorder_is_refused_with_what_to_do(tmp_path: Path, values: tuple[object, ...], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        symbols(tmp_path, *values)
    assert str(caught.value).startswith(f"pool.cif: frame 0 (from 0): {said}")
    assert "make ordered supercells" in str(caught.value)


def test_sites_have_the_elements_of_the_sum_formula(tmp_path: Path) -> None:
    good, bad = (
        CIF.replace("data_cuau", f"data_cuau\n_chemical_formula_sum '{text}'") for text in ("Au Cu", "Cu Au H4")
    )
    (tmp_path / "a.cif").write_text(good.format(1, ".", 0.5, 1, "."))
    (tmp_path / "b.cif").write_text(bad.format(1, ".", 0.5, 1, "."))
    assert len(list(read_frames(tmp_path / "a.cif", "a.cif", tmp_path))) == 1
    with pytest.raises(BadInput, match=r"b\.cif: frame 0 \(from 0\): the sum formula .*different elements \(H\)"):
        list(read_frames(tmp_path / "b.cif", "b.cif", tmp_path))


def test_disorder_is_refused_after_ase_has_written_it_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(CIF.format(0.5, ".", 0.0, 0.5, "."))
    for name in ("pool.extxyz", "pool.traj"):
        write(tmp_path / name, read(tmp_path / "a.cif"))
        (tmp_path / f"work {name}").mkdir()
        with pytest.raises(BadInput, match=rf"{name}: frame 0 \(from 0\): sites are occupied in part"):
            list(read_frames(tmp_path / name, name, tmp_path / f"work {name}"))
