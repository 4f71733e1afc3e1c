"""Others on a node as they come and go: bursts of work that are played, not an average that is always there.

A neighbour that uses a third of a core does not slow a query down by a third: it computes for a burst,
shares the core with the query by halves meanwhile, and rests. A query that is short against a burst meets
either none of it or twice its own time; a long one meets the mean. So each of the node's CPUs is given one
process of others that alternates between work and rest; how many of them work at once is a step function of
time, and a query is slowed down by what it meets of it.

How long a burst lasts is no property of a node: others are taken for servers, whose bursts are queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from tailwise.prediction.quota import FloatArray

BURST_MILLISECONDS = 12.0
"""CPU time of a neighbour's burst, the mean of an exponential distribution."""

BURSTS = 320
"""Bursts of all processes together that are played."""

_MOST_PROCESSES = 8
_ROUNDS = 30


@dataclass(frozen=True, slots=True)
class Activity:
    """Others over time: ``active`` threads from each of ``times`` (milliseconds) to the next, shape (m,).

    ``times`` has one element more, the end; what comes after it is as from the beginning.
    """

    times: FloatArray
    active: FloatArray


def at_work_share(capacity_cores: float, demand_cores: float, threads: float, processes: int) -> float:
    """Share of the time that each of the others' processes computes beside a pod that never rests.

    Beside a pod it takes longer over a burst, so it is at work more of the time than it would be alone: the
    fixed point of demand = share of time x what a process then gets.
    """
    wanted = demand_cores / processes
    share = min(1.0, wanted)
    for _ in range(_ROUNDS):
        # What one process gets while it computes, over how many of its fellows do.
        gets = sum(
            comb(processes - 1, fellows)
            * share**fellows
            * (1 - share) ** (processes - 1 - fellows)
            * min(1.0, capacity_cores / (threads + 1 + fellows))
            for fellows in range(processes)
        )
        share = min(1.0, wanted / gets)
    return share


def activity(capacity_cores: float, cpus: int, threads: float, utilisation: float) -> Activity:
    """Others' threads at work beside a pod of ``threads`` threads on a node of ``cpus`` CPUs.

    ``capacity_cores`` is what all together may use, ``utilisation`` others' demand as a fraction of it, which
    may be more threads than there are CPUs.
    """
    processes = min(cpus, _MOST_PROCESSES)
    # Demand beyond the CPUs is further threads, and each of them wants a whole CPU, not a part of one.
    each = max(float(cpus), capacity_cores * utilisation) / processes
    demand = capacity_cores * min(1.0, utilisation) * processes / cpus
    scale = processes / cpus
    share = at_work_share(capacity_cores * scale, demand, threads * scale, processes)
    if share >= 1 or share <= 0:
        return Activity(np.array([0.0, 1.0]), np.array([each * processes * max(0.0, share)]))
    gets = min(1.0, demand / processes / share)
    cycles = BURSTS // processes
    rng = np.random.default_rng(12)
    work = rng.exponential(BURST_MILLISECONDS / gets, (processes, cycles))
    rest = rng.exponential(BURST_MILLISECONDS / gets * (1 - share) / share, (processes, cycles))
    # Each process's own share is met exactly, whatever the draws, and all end together.
    length = cycles * BURST_MILLISECONDS / gets / share
    work *= (length * share / work.sum(axis=1))[:, np.newaxis]
    rest *= (length * (1 - share) / rest.sum(axis=1))[:, np.newaxis]
    steps = np.cumsum(np.stack([work, rest], axis=2).reshape(processes, -1), axis=1)
    begins = np.concatenate([np.zeros((processes, 1)), steps[:, 1:-1:2]], axis=1)
    moments = np.concatenate([begins.ravel(), steps[:, 0::2].ravel()])
    change = np.concatenate([np.ones(begins.size), -np.ones(begins.size)])
    order = np.argsort(moments, kind="stable")
    times = np.append(moments[order], length)
    return Activity(times, each * np.cumsum(change[order]))
