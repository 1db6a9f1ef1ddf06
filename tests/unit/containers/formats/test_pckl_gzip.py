"""Pacemaker's tables: everything of a good one, and not a line of code of a hostile one."""

from __future__ import annotations

import copyreg
import gzip
import io
import operator
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator, SinglePointDFTCalculator
from ase.constraints import FixAtoms

from containers.contract import BadInput
from containers.formats.pckl_gzip import ADMITTED, frame_rows
from containers.formats.reading import read_frames
from containers.structures.table import structure_id


def structures() -> list[Atoms]:
    first = bulk("Si", cubic=True)
    first.rattle(0.1, seed=0)
    second = Atoms("GeO", positions=[[0.1, 0.2, 0.3], [1 / 3, 2.0, 3.0]], cell=[5, 6, 7], pbc=(True, True, False))
    second.info |= {"group": "slab", "energy_note": "x"}
    second.set_constraint(FixAtoms([0]))
    return [first, second]


def table() -> pd.DataFrame:
    forces = [np.random.default_rng(row).normal(size=(len(atoms), 3)) for row, atoms in enumerate(structures())]
    columns = {"ase_atoms": structures(), "energy": [-1 / 3, -2.0], "forces": forces, "name": ["one", "two"]}
    return pd.DataFrame({**columns, "family": ["f", None], "number": [1, 2], "w_energy": [0.5, 0.5]})


def packed(content: Any, path: Path, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_structures_and_labels_come_back_with_every_bit(tmp_path: Path, protocol: int) -> None:
    frame = table()
    found = list(frame_rows(packed(frame, tmp_path / "t", protocol), "t.pckl.gzip"))
    for atoms, expected, (_, row) in zip(found, structures(), frame.iterrows(), strict=True):
        assert structure_id(atoms) == structure_id(expected)
        assert atoms.calc.results["energy"] == row["energy"]
        np.testing.assert_array_equal(atoms.calc.results["forces"], row["forces"])
        assert atoms.info["name"] == row["name"]
    assert found[0].info["family"] == "f"
    assert "family" not in found[1].info
    assert found[1].info["group"] == "slab"
    assert [bool(atoms.constraints) for atoms in found] == [False, True]


@pytest.mark.parametrize("change", [lambda table: table.iloc[::-1], lambda table: table.sample(frac=1, random_state=1)])
def test_rows_come_in_the_table_s_order(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame = change(table())
    found = frame_rows(packed(frame, tmp_path / "t"), "t")
    assert [atoms.info["name"] for atoms in found] == list(frame["name"])


@pytest.mark.parametrize("maker", [SinglePointCalculator, SinglePointDFTCalculator])
def test_labels_of_the_structure_s_own_calculator_and_total_forces(tmp_path: Path, maker: Any) -> None:
    (atoms, _) = structures()
    atoms.calc = maker(atoms, energy=-3.0, forces=np.zeros((8, 3)))
    (found,) = frame_rows(packed(pd.DataFrame({"ase_atoms": [atoms]}), tmp_path / "t"), "t")
    assert found.calc.results["energy"] == -3.0
    np.testing.assert_array_equal(found.calc.results["forces"], np.zeros((8, 3)))
    # in frames of delta learning `forces` lack the pair terms, which the energy has: total forces come first
    total = [np.ones((8, 3)), np.ones((2, 3))]
    for atoms in frame_rows(packed(table().assign(forces_total=total), tmp_path / "t"), "t"):
        np.testing.assert_array_equal(atoms.calc.results["forces"], np.ones((len(atoms), 3)))


def test_names_and_layouts_of_older_numpy_and_pandas_are_understood(tmp_path: Path) -> None:
    """Their pickles differ in where the same functions lay."""
    content = pickle.dumps(table(), protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in content
    assert len(list(frame_rows(packed(content, tmp_path / "t"), "t"))) == 2
    # the layout of pandas before 1.3
    frame = table()
    blocks = [{"values": block.values, "mgr_locs": block.mgr_locs.as_array} for block in frame._mgr.blocks]
    state = (None, None, None, {"0.14.1": {"axes": list(frame._mgr.axes), "blocks": blocks}})

    class Old:
        def __reduce__(self) -> tuple[Any, ...]:
            return copyreg.__newobj__, (type(frame._mgr),), state  # type: ignore[attr-defined]

    class OldFrame:
        def __reduce__(self) -> tuple[Any, ...]:
            return copyreg.__newobj__, (pd.DataFrame,), {"_data": Old()}  # type: ignore[attr-defined]

    content = Spelled.dumps(OldFrame())
    assert [atoms.info["name"] for atoms in frame_rows(packed(content, tmp_path / "t"), "t")] == ["one", "two"]


class Spelled(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Pickles `copyreg.__newobj__` of classes other than the object's own: what a liar would write."""

    def save_reduce(self, func: Any, args: Any, state: Any = None, *more: Any, obj: Any = None) -> None:
        super().save_reduce(func, args, state, *more)

    @classmethod
    def dumps(cls, content: Any) -> bytes:
        file = io.BytesIO()
        cls(file, protocol=4).dump(content)
        return file.getvalue()


# ---- hostile ones


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def hostile(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles that make `marker` (or touch other files, or change classes) when a plain unpickler opens them."""
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    np.save(marker.with_name("object.npy"), np.array([Calls(os.system, touch)], dtype=object), allow_pickle=True)
    yield "os.system", pickle.dumps(Calls(os.system, touch))
    yield "eval", pickle.dumps(Calls(eval, code))
    yield "exec", pickle.dumps(Calls(exec, code))
    yield "__import__", pickle.dumps(Calls(__import__, "os"))
    yield "open", pickle.dumps(Calls(open, str(marker), "w"))
    yield "numpy.load", pickle.dumps(Calls(np.load, str(marker.with_name("object.npy")), None, True))
    yield "numpy.save", pickle.dumps(Calls(np.save, str(marker), np.zeros(1)))
    yield "pandas.eval", pickle.dumps(Calls(pd.eval, "@__import__('os').system('true')"))
    yield "pandas.read_pickle", pickle.dumps(Calls(pd.read_pickle, str(marker.with_name("inner.pkl"))))
    yield "operator", pickle.dumps(Calls(operator.methodcaller("touch"), marker))
    yield "pathlib", pickle.dumps(Calls(Path.touch, marker))
    yield "getattr", b"cbuiltins\ngetattr\n(cposix\nsystem\nS'__call__'\ntR(S'" + touch.encode() + b"'\ntR."
    yield "in a cell of a good table", pickle.dumps(table().assign(name=[Calls(os.system, touch), "b"]))
    yield "in info", pickle.dumps(pd.DataFrame({"ase_atoms": [with_info(Calls(os.system, touch))]}))
    yield "a dotted name", b"\x80\x04\x8c\x09ase.atoms\x8c\x0eAtoms.__init__\x93."
    yield "through a module of a module", b"\x80\x04\x8c\x0anumpy.core\x8c\x09os.system\x93."
    yield "old GLOBAL", b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR."
    yield "INST", b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    yield "copyreg", b"ccopyreg\n_reconstructor\n(cos\nsystem\nNNtR."
    yield "a registered extension", b"\x80\x02\x82\x01."
    yield "a persistent id", b"\x80\x04\x8c\x01aQ."
    # methods of admitted classes: state that would be set on a class, or run by __setstate__
    yield "state onto a class", b"\x80\x04\x8c\x09ase.atoms\x8c\x05Atoms\x93N}\x8c\x07__len__K\x01s\x86b."
    yield "state with code", b"\x80\x04\x8c\x11pandas.core.frame\x8c\x09DataFrame\x93)\x81cos\nsystem\nb."


def with_info(value: Any) -> Atoms:
    atoms = bulk("Si")
    atoms.info["note"] = value
    return atoms


def names() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return [name for name, _ in hostile(Path(folder) / "marker")]


@pytest.mark.parametrize("name", names())
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    content = dict(hostile(marker))[name]
    path = tmp_path / "staged"
    path.write_bytes(gzip.compress(content))
    (tmp_path / "work").mkdir()
    length = Atoms.__len__
    with pytest.raises(BadInput, match=r"^mine\.pckl\.gzip: "):
        list(read_frames(path, "mine.pckl.gzip", tmp_path / "work"))
    assert not marker.exists()
    assert Atoms.__len__ is length


@pytest.mark.parametrize("name", ["os.system", "eval", "numpy.save", "pathlib", "old GLOBAL", "INST", "in info"])
def test_the_hostile_pickles_would_work(tmp_path: Path, name: str) -> None:
    """Else their refusal proves nothing."""
    marker = tmp_path / "marker"
    pickle.loads(dict(hostile(marker))[name])
    assert marker.exists() or marker.with_suffix(".npy").exists()


def test_a_refused_name_is_in_the_message_and_no_name_is_imported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^t: the pickle names posix\.system, which no table .* nothing of it was run"):
        list(frame_rows(packed(Calls(os.system, "true"), tmp_path / "t"), "t"))
    # not even an admitted one: what is not loaded yet stays so
    before = set(sys.modules)
    list(frame_rows(packed(table(), tmp_path / "t"), "t"))
    assert set(sys.modules) == before
    assert "numpy.core.numeric" in ADMITTED


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "no pandas DataFrame but a list"),
        (structures()[0], "no pandas DataFrame but a Atoms"),
        (pd.DataFrame({"energy": [1.0]}), "lacks the column ase_atoms; it has energy"),
        (pd.DataFrame({"ase_atoms": ["text"]}), r"frame 0 \(from 0\) cannot be read .*not a structure but str"),
        (pd.DataFrame({"ase_atoms": [structures()[0], None]}), r"frame 1 \(from 0\) cannot be read"),
        (b"\x80\x04no pickle", "not a readable pickle"),
        (pickle.dumps(table())[:-40], "not a readable pickle"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "not a readable pickle .*keeps object 0 as number 2147483647"),
        (b"\x80\x04\x95" + b"\xff" * 7 + b"\x00N.", "not a readable pickle .*claims a part of"),
        (pd.DataFrame([structures()] * 2, columns=["ase_atoms"] * 2), "two columns are called ase_atoms"),
    ],
)
def test_what_is_no_table_of_structures(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(BadInput, match=f"^t: .*{words}"):
        list(frame_rows(packed(content, tmp_path / "t"), "t"))


def test_lists_in_lists_do_not_grow(tmp_path: Path) -> None:
    """Thirty levels of ten times the same list are 10^30 items for who copies them."""
    nested: list[Any] = []
    for _ in range(30):
        nested = [nested] * 10
    ring: list[Any] = []
    ring.append(ring)
    content = pd.DataFrame({"ase_atoms": [with_info(nested), with_info(ring)]})
    assert len(list(frame_rows(packed(content, tmp_path / "t"), "t"))) == 2


def test_arrays_and_places_that_claim_more_than_there_is(tmp_path: Path) -> None:
    content = pickle.dumps(table(), protocol=3)
    small, huge = pickle.dumps((8, 3), protocol=3)[2:-1], pickle.dumps((8, 3 * 10**12), protocol=3)[2:-1]
    assert small[:5] in content
    atoms = content.replace(b"K\x08K\x03\x86", huge.split(b"q\x00")[0])
    assert atoms != content
    with pytest.raises(BadInput, match=r"frame 0 \(from 0\)"):
        list(frame_rows(packed(atoms, tmp_path / "t"), "t"))
    # a column's place is a range; as a list it would fill the memory
    content = pickle.dumps(table(), protocol=2)
    start = content.index(b"slice\n")
    place = content.index(b"K", start)
    changed = content[:place] + pickle.dumps(0, protocol=2)[2:-1] + content[place + 2 :]
    end = changed.index(b"K", place + 2)
    changed = changed[:end] + pickle.dumps(2**40, protocol=2)[2:-1] + changed[end + 2 :]
    with pytest.raises(BadInput, match="layout that is not read"):
        list(frame_rows(packed(changed, tmp_path / "t"), "t"))
