import openmm
import pytest

from qmmlmm.errors import UnsupportedSystemError
from qmmlmm.mm.virtual_sites import check_virtual_sites, complete_with_virtual_sites


def two_waters(image=False):
    """O, H, H, M twice; the second water also has a site between M and O."""
    system = openmm.System()
    for mass in (16, 1, 1, 0, 16, 1, 1, 0, 0):
        system.addParticle(mass)
    for first in (0, 4):
        site = openmm.ThreeParticleAverageSite(first, first + 1, first + 2, 0.8, 0.1, 0.1)
        system.setVirtualSite(first + 3, site)
    system.setVirtualSite(8, openmm.TwoParticleAverageSite(4, 7, 0.5, 0.5))
    if image:
        axes = [openmm.Vec3(1, 0, 0), openmm.Vec3(0, 1, 0), openmm.Vec3(0, 0, 1)]
        system.addParticle(0)
        system.setVirtualSite(9, openmm.SymmetrySite(0, *axes, openmm.Vec3(1, 0, 0), False))
    return system


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        ((0, 1, 2), (0, 1, 2, 3)),
        ((2, 0, 1, 3), (0, 1, 2, 3)),
        ((4, 5, 6), (4, 5, 6, 7, 8)),
        ((0, 1, 2, 4, 5, 6), tuple(range(9))),
        ((), ()),
    ],
)
def test_atoms_get_the_virtual_sites_that_hang_on_them_alone(atoms, expected):
    assert complete_with_virtual_sites(two_waters(), atoms) == expected


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (
            (0, 1),
            r"the region cuts virtual site 3, whose parents are 0, 1, 2: add particles 2, 3 or remove 0, 1",
        ),
        ((3,), r"cuts virtual site 3.*add particles 0, 1, 2 or remove 3"),
        ((0, 1, 2, 8), r"cuts virtual site 8, whose parents are 4, 7"),
    ],
)
def test_atoms_that_cut_a_virtual_site_are_refused(atoms, message):
    with pytest.raises(UnsupportedSystemError, match=message):
        complete_with_virtual_sites(two_waters(), atoms)


def test_a_virtual_site_left_out_is_refused_by_the_check():
    with pytest.raises(UnsupportedSystemError, match=r"region 'water' cuts virtual site 3.*add particles 3 or"):
        check_virtual_sites(two_waters(), (0, 1, 2), "water")


def test_a_symmetry_image_of_a_region_is_refused():
    with pytest.raises(UnsupportedSystemError, match=r"particle 9 is a symmetry image .* of particle 0"):
        complete_with_virtual_sites(two_waters(image=True), (0, 1, 2))
    assert complete_with_virtual_sites(two_waters(image=True), (4, 5, 6)) == (4, 5, 6, 7, 8)
