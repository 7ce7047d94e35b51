"""An active site: its atoms, charge and multiplicity, its residues, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.coupling.region import Region
from qmmlmm.errors import SelectionError, signed
from qmmlmm.setting_checks import check_whole_number


@dataclass(frozen=True)
class SiteResidue:
    """A residue, or a part of one, in a site.

    Parameters
    ----------
    label : str
        Such as ``TYR A:55``.
    part : str
        ``"whole"``, ``"side chain"``, ``"backbone"``, ``"side chain and backbone"``, or such as
        ``"part, cut at C5D-C4D"``.
    charge : int
    why : str
    """

    label: str
    part: str
    charge: int
    why: str


@dataclass(frozen=True)
class LeftOut:
    """A residue that is near and not in the site.

    Parameters
    ----------
    label : str
    distance : float, angstrom
    why : str
    """

    label: str
    distance: float
    why: str


@dataclass(frozen=True)
class Site:
    """An active site.

    Parameters
    ----------
    atoms : tuple of int
    charge : int
        Sum of the formal charges of what is inside.
    multiplicity : int or None
        1 where the number of electrons is even and no transition metal is inside; None where you have to say it.
    electrons : int
        Including those of the link hydrogens.
    force_field_charge : float, e
        Sum of the force field's charges of the same atoms; differs where bonds are cut.
    cuts : tuple of (int, int)
        Region atom and outside atom of each cut bond.
    residues : tuple of SiteResidue
    left_out : tuple of LeftOut
    notes : tuple of str
    """

    atoms: tuple[int, ...]
    charge: int
    multiplicity: int | None
    electrons: int
    force_field_charge: float
    cuts: tuple[tuple[int, int], ...]
    residues: tuple[SiteResidue, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    def region(self, name: str = "site", multiplicity: int | None = None) -> Region:
        """Return the site as a region.

        Parameters
        ----------
        name : str
        multiplicity : int, optional
            2S + 1; needed where `Site.multiplicity` is None.

        Raises
        ------
        SelectionError
            If the multiplicity is not known, or does not go with the number of electrons.
        """
        chosen = self.multiplicity if multiplicity is None else check_whole_number("multiplicity", multiplicity)
        if chosen is None:
            raise SelectionError(
                f"the multiplicity of the site cannot be known ({self.electrons} electrons, or a transition metal): "
                "give it, 2S + 1, such as multiplicity=5 for high-spin iron(II)"
            )
        if (self.electrons - (chosen - 1)) % 2:
            raise SelectionError(
                f"{self.electrons} electrons with charge {signed(self.charge)} do not go with the multiplicity {chosen}"
            )
        return Region(name, self.atoms, self.charge, chosen)

    def text(self) -> str:
        """Return the site as lines."""
        shown = "to be given" if self.multiplicity is None else str(self.multiplicity)
        lines = [
            f"{len(self.atoms)} atoms, {len(self.cuts)} cut bonds, charge {signed(self.charge)} (force field "
            f"{self.force_field_charge:+.2f}), {self.electrons} electrons, multiplicity {shown}",
            "in the site:",
            *(f"  {r.label:<12} {r.part:<24} {signed(r.charge)}  {r.why}" for r in self.residues),
        ]
        if self.left_out:
            lines += ["left out:", *(f"  {r.label:<12} {r.distance:4.1f} A  {r.why}" for r in self.left_out)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)]) + "\n"
