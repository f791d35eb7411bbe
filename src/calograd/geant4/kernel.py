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
from typing import TYPE_CHECKING, Any

import numpy as np

from calograd.detector.configuration import PDG, Incident, SimulationConfig, beam_direction, outside_world
from calograd.detector.gdml import Geometry
from calograd.detector.sampling_stack import SamplingStack
from calograd.errors import InputError
from calograd.geant4.geometry import build
from calograd.geant4.recording import DepositRecorder, PlateEnergies, Recorder, VolumeDeposits

if TYPE_CHECKING:
    from calograd.events.library.schema import Record

REFUSED = 4
"""Exit code of a kernel whose input cannot be simulated, however often it is tried."""


def simulate_showers(config: SimulationConfig, indices: list[int], direct: bool = True) -> Record:
    """Simulate showers in this process, which can do so once.

    Args:
        config: what to simulate; Geant4's tables must be in place.
        indices: indices of the showers.
        direct: see `calograd.geant4.recording.DepositRecorder`.

    Returns:
        Deposits: positions in cm, energies in GeV, times in ns since the particle crossed the front face, float32. Of a
        stack of plates their energies and thicknesses, with the deposits in active plates if its ``record`` says so. Of
        every shower ``index`` int64, ``seed`` uint64 and the incident particle.

    Raises:
        InputError: a GDML file that is missing or has changed, or whose world does not hold the start of a particle.
    """
    import geant4_pybind as g4

    if isinstance(config.detector, Geometry):
        config.detector.check_file()
    energies: list[float] = []
    incidents: list[Incident] = []
    seeds: list[int] = []
    recorder = _recorder(config, direct)

    class Detector(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
        def Construct(self) -> Any:  # noqa: N802
            self.built = build(g4, config)
            return self.built.kept[0]

        def ConstructSDandField(self) -> None:  # noqa: N802
            self.sensitive = recorder.sensitive(g4)
            for sensitive, volumes in self.sensitive:
                g4.G4SDManager.GetSDMpointer().AddNewDetector(sensitive)
                for volume in volumes:
                    self.SetSensitiveDetector(volume, sensitive, True)

    class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)

        def GeneratePrimaries(self, event: Any) -> None:  # noqa: N802
            index = indices[len(seeds)]
            engine_seed, energy, incident = config.draw(index)
            g4.G4Random.setTheSeed(engine_seed, 0)
            recorder.begin(engine_seed)
            energies.append(energy)
            incidents.append(incident)
            seeds.append(engine_seed)
            direction = beam_direction(incident.theta, incident.phi)
            table = g4.G4ParticleTable.GetParticleTable()
            self.gun.SetParticleDefinition(table.FindParticle(incident.particle))
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*direction))
            self.gun.SetParticlePosition(_start(g4, config, incident))
            self.gun.SetParticleEnergy(1000 * energy)
            self.gun.GeneratePrimaryVertex(event)

    class EndOfEvent(g4.G4UserEventAction):  # type: ignore[misc]
        def EndOfEventAction(self, event: Any) -> None:  # noqa: N802
            recorder.end(event)

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
    detector = Detector()
    keep = (detector, Physics(), Actions())
    for part in keep:
        manager.SetUserInitialization(part)
    manager.Initialize()
    _refuse_starts_outside(g4, config, detector.built.kept[0], indices)
    recorder.run(manager, detector.built.arrange, indices)
    return recorder.showers(
        energy=np.array(energies, dtype=np.float32),
        index=np.array(indices, dtype=np.int64),
        seed=np.array(seeds, dtype=np.uint64),
        particle=np.array([PDG[each.particle] for each in incidents], dtype=np.int32),
        position=np.array([each.position for each in incidents], dtype=np.float32).reshape(-1, 2),
        theta=np.array([each.theta for each in incidents], dtype=np.float32),
        phi=np.array([each.phi for each in incidents], dtype=np.float32),
    )


def _start(g4: Any, config: SimulationConfig, incident: Incident) -> Any:
    """Return the point of Geant4's world at which a particle starts."""
    x, y, z = config.beam.start(incident)
    return g4.G4ThreeVector(10 * x, 10 * y, 10 * (z + config.front))


def _refuse_starts_outside(g4: Any, config: SimulationConfig, world: Any, indices: list[int]) -> None:
    """Raise `InputError` for particles that start outside of the world of a GDML file, which may be of any shape."""
    if not isinstance(config.detector, Geometry):
        return
    solid = world.GetLogicalVolume().GetSolid()
    for index in indices:
        incident = config.draw(index)[2]
        if solid.Inside(_start(g4, config, incident)) != g4.EInside.kInside:
            raise outside_world(config.detector, config.beam.start(incident))


def _recorder(config: SimulationConfig, direct: bool) -> Recorder:
    """Return what records the showers of a simulation."""
    deposits = VolumeDeposits(DepositRecorder(direct), config)
    if isinstance(config.detector, SamplingStack):
        points = config.detector.record == "points"
        return PlateEnergies(config, 3 * config.detector.layers_range[1], deposits if points else None)
    return deposits


def _leave_when_orphaned() -> None:
    """Exit the process when its standard input closes, since its parent is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read ``{"config", "indices", "output"}`` as one line of JSON and write the showers to ``output`` as ``.npz``.

    An input that cannot be simulated ends the process with the exit code `REFUSED` and one line that says why.
    """
    job = json.loads(sys.stdin.readline())
    _leave_when_orphaned()
    config = SimulationConfig.model_validate(job["config"])
    try:
        showers = simulate_showers(config, job["indices"])
    except InputError as error:
        sys.stderr.write(f"\n{error}\n")
        sys.stderr.flush()
        os._exit(REFUSED)
    with Path(job["output"]).open("wb") as file:
        np.savez(file, **showers.columns())
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
