"""ExploredContext: a multiprocessing context whose processes are ordered by an explorer."""

from __future__ import annotations

from multiprocessing import context
from typing import Any

from lab.explored import connection, managers, pool, process, queues, shared, sharedctypes, synchronize


class ExploredContext(context.BaseContext):
    """The context of the explored place: each name that a process context has.

    It has no state of its own: what its primitives do goes to the scheduler of the run that goes on.
    """

    place = "explored"
    _name = "explored"

    Process: Any = process.Process
    Queue: Any = queues.Queue
    JoinableQueue: Any = queues.JoinableQueue
    SimpleQueue: Any = queues.SimpleQueue
    Lock: Any = synchronize.Lock
    RLock: Any = synchronize.RLock
    Semaphore: Any = synchronize.Semaphore
    BoundedSemaphore: Any = synchronize.BoundedSemaphore
    Condition: Any = synchronize.Condition
    Event: Any = synchronize.Event
    Barrier: Any = synchronize.Barrier
    Pool: Any = pool.Pool
    Manager: Any = managers.Manager
    Pipe: Any = staticmethod(connection.Pipe)
    Value: Any = staticmethod(sharedctypes.make_value)
    Array: Any = staticmethod(sharedctypes.make_array)
    share: Any = shared.ReadOnly
    current_process: Any = staticmethod(process.current_process)
    parent_process: Any = staticmethod(process.parent_process)
    active_children: Any = staticmethod(process.active_children)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object without a lock."""
        return sharedctypes.make_value(typecode_or_type, *args, lock=False)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array without a lock."""
        return sharedctypes.make_array(typecode_or_type, size_or_initializer, lock=False)

    def cpu_count(self) -> int:
        """2: the same on every machine, and what can be explored."""
        return 2

    def get_context(self, method: Any = None) -> Any:
        """This context, or another by its name."""
        return self if method in (None, self._name) else super().get_context(method)
