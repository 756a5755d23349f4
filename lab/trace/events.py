"""The words of a trace: one schema for every place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WORDS = {
    # processes
    "starts": "starts a process (item: which)",
    "started": "a process, or a thread that is one, begins (item: by which start; name)",
    "ended": "it came to its end (code; cpu, ready: nanoseconds on a core, and ready without one)",
    "died": "its record breaks off: it was killed (code, if somebody learned it), or was still there at the end of the trace",
    "lapsed": "it lost its lease: it was taken for dead",
    "signalled": "terminates or kills a process",
    "joined": "has waited for the end of a process (item: which; code)",
    "broken": "something was broken on purpose (name: what)",
    # calls of a pool
    "asked": "gives a pool a call (item; count: so many, with numbers from item on)",
    "begun": "a call begins (item; call: its function)",
    "done": "a call has ended (item; call; error)",
    "redelivered": "a call begins that had begun elsewhere (item; of: where)",
    # locks, semaphores
    "made": "a primitive is made (kind; value)",
    "wanted": "wants a lock (of: who had it)",
    "got": "has it (of: who gave it back last, if it had to be waited for)",
    "released": "gives it back",
    # queues and pipes
    "put": "puts an item into a queue (item)",
    "taken": "gets an item out of a queue (item)",
    "sent": "sends a message (item)",
    "received": "receives a message (item)",
    # values
    "read": "reads a value (value; name: the method or attribute of a managed object)",
    "written": "writes it (value; name)",
    "added": "adds to it in one step (value)",
    # waiting for others
    "waits": "begins to wait: for an item, a message, an event, a condition, a barrier, a process, an answer (items: of which"
    " calls, a hundred at the most), room",
    "woken": "has what it waited for (of: who brought it; items: the calls that have ended)",
    "gave up": "ends a wait, or an attempt, without it (interrupted: by Ctrl-C)",
    "set": "sets an event",
    "cleared": "clears it",
    "notified": "wakes who waits for a condition",
    # what only a network has
    "refused": "what it wrote was refused by the fence, as it had been taken for dead",
    "outage begun": "Redis does not answer",
    "outage ended": "Redis answers again",
    # samples
    "cpu": "nanoseconds on a core, and ready without one, so far (cpu, ready)",
}
"""Every event, and what it says of who does it."""


@dataclass(slots=True)
class Event:
    """One thing that happened.

    Attributes:
        t: When it began, nanoseconds since its run began.
        who: Who did it: ``host/pid/thread``.
        event: A word of ``WORDS``.
        on: The primitive or process it was done to; empty if to none.
        at: File and line of the program; empty if not known.
        took: How long it took, nanoseconds; 0 of what takes no time, or has an event of its own for its end.
        run: Number of the run in its trace: one program in one place.
        more: What else there is to say: ``item``, ``of``, ``value``, ``code`` ...
    """

    t: int
    who: str
    event: str
    on: str = ""
    at: str = ""
    took: int = 0
    run: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def item(self) -> str:
        """Number of the item, call or process that it is about; empty if about none."""
        return str(self.more.get("item", ""))

    def to_json(self) -> dict[str, Any]:
        """The event as plain JSON types, without what is empty."""
        found: dict[str, Any] = {"run": self.run, "t": self.t, "who": self.who, "event": self.event}
        for name in ("on", "at", "took"):
            if value := getattr(self, name):
                found[name] = value
        return found | self.more

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Event:
        """An event from its JSON.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        own = {"run", "t", "who", "event", "on", "at", "took"}
        more = {name: value for name, value in found.items() if name not in own}
        return cls(
            int(found["t"]), str(found["who"]), str(found["event"]), str(found.get("on", "")), str(found.get("at", "")),
            int(found.get("took", 0)), int(found.get("run", 0)), more,
        )  # fmt: skip

    @property
    def process(self) -> str:
        """``host/pid`` of who did it."""
        return self.who.rpartition("/")[0]


@dataclass
class Trace:
    """One or several programs, each in one or several places.

    Attributes:
        runs: What was run: ``concept`` (or the script), ``place``, ``began`` (UTC), ``clock error`` in nanoseconds.
        events: Of all runs, those of a run next to each other and in order of time.
        about: Of the whole: ``version``, ``machine``, ``cost``.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def of(self, run: int) -> list[Event]:
        """The events of one run."""
        return [event for event in self.events if event.run == run]
