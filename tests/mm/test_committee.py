"""Uncertainty of a committee inside a System, against each member as a model of its own."""

from typing import Dict  # noqa: UP035

import numpy as np
import openmm
import pytest
import torch
from torch import Tensor

from qmmlmm import Hamiltonian, MLPotential, OpenMMPotential, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, PotentialError
from qmmlmm.sampling.adaptive_correction import AdaptiveCorrection
from tests.mm.conftest import PEPTIDE, SIDE_CHAIN
from tests.mm.test_mixed_system import EvaluatedSprings, context_of

MEMBERS = 3
SCALE = 1.7


class Committee(torch.nn.Module):
    """Members with springs, charges and polarisabilities of their own; `only` makes one of them a model."""

    uncertainty_scale: Tensor
    separate_parts: Tensor

    def __init__(self, only: int = -1, separate: bool = False) -> None:
        super().__init__()
        self.only = only
        self.members = MEMBERS
        self.register_buffer("uncertainty_scale", torch.tensor(SCALE, dtype=torch.float64))
        self.register_buffer("separate_parts", torch.tensor(separate))

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x = inputs["positions"]
        n = x.shape[0]
        pairs = torch.triu_indices(n, n, 1)
        r = torch.sqrt(((x[pairs[0]] - x[pairs[1]]) ** 2).sum(-1))
        energies = []
        for k in range(self.members):
            energy = 0.001 * ((r - 4.0 - 0.3 * k) ** 2).sum()
            if "potential" in inputs:
                charges = 0.1 * torch.cos(torch.arange(n, dtype=x.dtype) * (1.0 + 0.2 * k)) + 0.01 * k * x[:, 0]
                energy = energy + (charges * inputs["potential"]).sum()
                energy = energy - (1.0 + k) * (inputs["field"] ** 2).sum()
            energies.append(energy)
        member_energies = torch.stack(energies)
        if self.only >= 0:
            return {"energy": member_energies[self.only]}
        return {"energy": member_energies.mean(), "member_energies": member_energies}


def mixed_with(case, module, atoms, embedding):
    potential = MLPotential(module, elements=[1, 6, 7, 8], embeddings=["electrostatic", "mechanical"])
    hamiltonian = Hamiltonian([Term(potential, Region("site", atoms), embedding=embedding)])
    return create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")


def one_by_one(case, atoms, embedding):
    """Return the forces of each member as a model of its own, (members, n, 3) kJ/(mol nm)."""
    forces = []
    for k in range(MEMBERS):
        mixed = mixed_with(case, Committee(only=k), atoms, embedding)
        group = {mixed.force_groups["site/ML"]}
        state = context_of(mixed.system, case.positions).getState(forces=True, groups=group)
        forces.append(state.getForces(asNumpy=True)._value[list(atoms)])
    return np.array(forces)


@pytest.mark.parametrize("embedding", ["electrostatic", "mechanical"])
@pytest.mark.parametrize("atoms", [PEPTIDE, SIDE_CHAIN], ids=["whole", "cut"])
@pytest.mark.parametrize("surroundings", ["amber_vacuum", "tip4p_cube"])
def test_the_spread_is_that_of_the_members_run_one_by_one(request, surroundings, atoms, embedding):
    case = request.getfixturevalue(surroundings)
    plain = np.var(one_by_one(case, atoms, embedding), axis=0, ddof=1)
    alone = one_by_one(case, atoms, "mechanical")
    parts = np.var(alone, axis=0, ddof=1) + np.var(one_by_one(case, atoms, embedding) - alone, axis=0, ddof=1)
    for separate, variance in ((False, plain), (True, parts)):
        wanted = SCALE * np.sqrt(variance.mean(axis=-1))
        mixed = mixed_with(case, Committee(separate=separate), atoms, embedding)
        found = mixed.force_uncertainty(context_of(mixed.system, case.positions), "site/ML")
        np.testing.assert_allclose(found._value, wanted, rtol=1e-6)
        assert wanted.min() > 1.0
    differ = np.abs(parts - plain).max() > 0.01 * plain.max()
    assert differ == (embedding == "electrostatic")


def test_what_has_no_members_is_refused(amber_vacuum):
    single = mixed_with(amber_vacuum, Committee(only=0), PEPTIDE, "mechanical")
    context = context_of(single.system, amber_vacuum.positions)
    with pytest.raises(PotentialError, match="train one with members=4"):
        single.force_uncertainty(context, "site/ML")
    with pytest.raises(HamiltonianError, match="no ML term 'site/QM'; those that there are: site/ML"):
        single.force_uncertainty(context, "site/QM")
    inner = openmm.System()
    for _ in PEPTIDE:
        inner.addParticle(12.0)
    term = Term(OpenMMPotential(inner), Region("site", PEPTIDE), embedding="mechanical")
    mixed = create_mixed_system(amber_vacuum.topology, amber_vacuum.system, Hamiltonian([term]))
    with pytest.raises(HamiltonianError, match="those that there are: none"):
        mixed.force_uncertainty(context_of(mixed.system, amber_vacuum.positions), "site/MM")


def test_qm_runs_where_the_committee_is_unsure(amber_vacuum):
    """The whole way: the level that is not needed is not computed, and total energy less booked work is conserved."""
    case, region = amber_vacuum, Region("site", PEPTIDE)
    ml = MLPotential(Committee(), elements=[1, 6, 7, 8], embeddings=["electrostatic"])
    qm = EvaluatedSprings(0.05 * np.cos(np.arange(22)))
    terms = [
        Term(ml, region, embedding="electrostatic", coefficient="1-lambda_qm"),
        Term(qm, region, embedding="electrostatic", coefficient="lambda_qm"),
    ]
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms, parameters={"lambda_qm": 0.0}))
    context = context_of(mixed.system, case.positions, integrator=openmm.VerletIntegrator(0.00002))

    def total():
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value

    start = total()
    highest = mixed.force_uncertainty(context, "site/ML")._value.max()
    calm = AdaptiveCorrection(mixed, context, "site/ML", upper=2 * highest, lower=highest)
    calm.step(20)
    assert mixed.evaluations("site/QM") == calm.steps_with_qm == 0
    unsure = AdaptiveCorrection(mixed, context, "site/ML", upper=0.5 * highest, lower=0.4 * highest, ramp_steps=15)
    unsure.step(40)
    assert context.getParameter("lambda_qm") == 1.0
    assert unsure.steps_with_qm == 40
    assert mixed.evaluations("site/QM") <= 41
    before = mixed.evaluations("site/ML")
    unsure.step(10)
    assert mixed.evaluations("site/ML") == before
    work = unsure.work._value
    assert abs(work) > 10.0
    assert total() - start == pytest.approx(work, rel=5e-3)
