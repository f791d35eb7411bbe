"""The kernel: one process that runs Geant4.

``python -m calograd.geant4.kernel`` reads a job from standard input, simulates its showers and writes them to one
``.npz`` file. Geant4 allows one run manager a process and crashes when it is destroyed, so the process flushes its file
and exits with ``os._exit``. It also exits when its standard input closes, so that no kernel outlives a worker that was
killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calograd.detector.configuration import PDG, SPEED_OF_LIGHT, Incident, SimulationConfig, beam_direction
from calograd.events.ragged import Showers
from calograd.geant4.geometry import SENSITIVE, build
from calograd.geant4.recording import DepositRecorder

POSITION_GRID = 2.0**-12
"""Grid to which positions are rounded, cm (2.4 micrometres); it makes files compress well."""
TIME_GRID = 2.0**-11
"""Grid to which times are rounded, ns (0.5 ps); with it times add a sixth to a file."""


def simulate_showers(config: SimulationConfig, indices: list[int], direct: bool = True) -> Showers:
    """Simulate showers in this process, which can do so once.

    Args:
        config: what to simulate; Geant4's tables must be in place.
        indices: indices of the showers.
        direct: see `calograd.geant4.recording.DepositRecorder`.

    Returns:
        Positions in cm, energies in GeV, times in ns since the particle crossed the front face, float32; ``index``
        int64, ``seed`` uint64 and the incident particle of every shower.
    """
    import geant4_pybind as g4

    energies: list[float] = []
    incidents: list[Incident] = []
    seeds: list[int] = []
    deposits = DepositRecorder(direct)
    tables: list[NDArray[np.float32]] = []
    before = config.beam.upstream / SPEED_OF_LIGHT

    class Detector(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
        def Construct(self) -> Any:  # noqa: N802
            self.volumes = build(g4, config)
            return self.volumes[0]

        def ConstructSDandField(self) -> None:  # noqa: N802
            self.sensitive = Sensitive("deposits")
            g4.G4SDManager.GetSDMpointer().AddNewDetector(self.sensitive)
            self.SetSensitiveDetector(SENSITIVE, self.sensitive, True)

    class Sensitive(g4.G4VSensitiveDetector):  # type: ignore[misc]
        def ProcessHits(self, step: Any, history: Any) -> bool:  # noqa: ARG002, N802
            deposits.take(step)
            return True

    class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)

        def GeneratePrimaries(self, event: Any) -> None:  # noqa: N802
            index = indices[event.GetEventID()]
            engine_seed, energy, incident = config.draw(index)
            g4.G4Random.setTheSeed(engine_seed, 0)
            deposits.begin(engine_seed)
            energies.append(energy)
            incidents.append(incident)
            seeds.append(engine_seed)
            direction, upstream = beam_direction(incident.theta, incident.phi), config.beam.upstream
            entry = (*incident.position, 0.0)
            start = (10 * (at - upstream * u) for at, u in zip(entry, direction, strict=True))
            table = g4.G4ParticleTable.GetParticleTable()
            self.gun.SetParticleDefinition(table.FindParticle(incident.particle))
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*direction))
            self.gun.SetParticlePosition(g4.G4ThreeVector(*start))
            self.gun.SetParticleEnergy(1000 * energy)
            self.gun.GeneratePrimaryVertex(event)

    class EndOfEvent(g4.G4UserEventAction):  # type: ignore[misc]
        def EndOfEventAction(self, event: Any) -> None:  # noqa: ARG002, N802
            tables.append(_stored(deposits.end(), before))

    class Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
        def Build(self) -> None:  # noqa: N802
            self.actions = (Gun(), EndOfEvent())
            for action in self.actions:
                self.SetUserAction(action)

    class Physics(g4.G4VModularPhysicsList):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.SetVerboseLevel(0)
            self.RegisterPhysics(g4.G4EmStandardPhysics())
            self.SetDefaultCutValue(10 * config.range_cut)

    manager = g4.G4RunManager()
    manager.SetVerboseLevel(0)
    g4.G4EmParameters.Instance().SetVerbose(0)
    keep = (Detector(), Physics(), Actions())
    for part in keep:
        manager.SetUserInitialization(part)
    manager.Initialize()
    manager.BeamOn(len(indices))
    x, y, z, t, e = np.concatenate(tables, axis=1)
    return Showers(
        x=x,
        y=y,
        z=z,
        e=e,
        t=t,
        offsets=np.cumsum([0, *(each.shape[1] for each in tables)], dtype=np.int64),
        energy=np.array(energies, dtype=np.float32),
        index=np.array(indices, dtype=np.int64),
        seed=np.array(seeds, dtype=np.uint64),
        particle=np.array([PDG[each.particle] for each in incidents], dtype=np.int32),
        position=np.array([each.position for each in incidents], dtype=np.float32).reshape(-1, 2),
        theta=np.array([each.theta for each in incidents], dtype=np.float32),
        phi=np.array([each.phi for each in incidents], dtype=np.float32),
    )


def _stored(table: NDArray[np.float64], before: float) -> NDArray[np.float32]:
    """Return x, y, z in cm, t in ns since the particle crossed the front face, and e in GeV of a shower, (5, deposits).

    Args:
        table: see `calograd.geant4.recording.DepositRecorder.end`.
        before: time that the particle took to the front face, ns.
    """
    stored = np.empty((5, len(table)), dtype=np.float32)
    stored[:3] = np.round(table[:, :3].T * (0.1 / POSITION_GRID)) * POSITION_GRID
    stored[3] = np.round((table[:, 3] - before) / TIME_GRID) * TIME_GRID + 0.0
    stored[4] = table[:, 4] / 1000
    return stored


def _leave_when_orphaned() -> None:
    """Exit the process when its standard input closes, since its parent is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read ``{"config", "indices", "output"}`` as one line of JSON and write the showers to ``output`` as ``.npz``."""
    job = json.loads(sys.stdin.readline())
    _leave_when_orphaned()
    config = SimulationConfig.model_validate(job["config"])
    showers = simulate_showers(config, job["indices"])
    with Path(job["output"]).open("wb") as file:
        np.savez(file, **vars(showers))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
