"""Load of all nodes as decisions take it: what samples show, what residents want, what is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from tailwise.controllers.node_facts import NodeFacts
from tailwise.controllers.residents import Residents
from tailwise.domain.capacity import Floats, assumed_utilisation, known_load
from tailwise.domain.neighbours import demanded
from tailwise.domain.snapshot import NodeTable


@dataclass(frozen=True, slots=True)
class LoadOfNodes:
    """Load of all nodes, each (nodes,): demand as far as samples show it, and what comes on top of it.

    Both are fractions of capacity; ``shown`` is NaN where unknown. ``age_seconds`` is the age of samples.
    """

    shown: Floats
    coming: Floats
    age_seconds: Floats
    # 0 for fresh samples to 1 for the oldest that count.
    doubt: Floats

    @property
    def total(self) -> Floats:
        """Both together, NaN where unknown; above 1 it is demand that the node cannot meet."""
        return self.shown + self.coming


def load_of_nodes(
    table: NodeTable,
    facts: NodeFacts,
    residents: Residents,
    coming_cores: Floats,
    now: datetime,
    oldest_seconds: float,
) -> LoadOfNodes:
    """The load at ``now``; samples older than ``oldest_seconds`` are doubted, past twice that not used.

    ``coming_cores``: (nodes,), cores of pods that no sample shows yet.
    """
    ages = np.maximum(now.timestamp() - facts.sampled_at, 0.0)
    measured, doubt = known_load(facts.utilisation, ages, oldest_seconds)
    wanted, shown = residents.wanted_cores(table, coming_cores)
    return LoadOfNodes(
        shown=demanded(measured, assumed_utilisation(shown, facts.capacity_cores)),
        # Where nothing was measured, what residents want is known all the same.
        coming=assumed_utilisation(
            np.where(np.isnan(measured), np.maximum(wanted, coming_cores), coming_cores), facts.capacity_cores
        ),
        age_seconds=ages,
        doubt=doubt,
    )
