"""Lua scripts, and how one of them takes effect exactly once although its reply may be lost.

A connection can break after Redis ran a script and before the reply came. Whoever sent it cannot tell that from a
connection which broke before: sent again, the script may act twice; not sent again, not at all. So a script that changes
something is *numbered*: it writes its number, and what it replied, into a journal, in the same step as the change itself.
After the connection is made again, the journal says how far Redis came (``lane.Lane``).

The journal is the *fence* as well. It is deleted with its process when that is taken for dead, and made anew for the living
only. So one command both enters the number and tells whether the sender is alive: if it had an entry before, it is.

On Redis: hash ``journal:PROCESS`` of a run, one field for each connection of the process: the last number, and the reply to
it if that is not 1.
"""

from __future__ import annotations

from hashlib import sha1

from lab.errors import BrokerUnreachable, LeaseLost

NUMBERED = b"EVALSHA"
"""The first word of a numbered command, to be compared by ``is``: Redis sees no difference, a lane does."""

_HELPERS = {
    "alive": "local function alive(process) return redis.call('ZSCORE', processes, process) end",
    "keep": "local function keep(key) redis.call('PEXPIRE', key, ttl) end",
    "create": "local function create(key) redis.call('SADD', registry, key) keep(registry) keep(key) end",
    "now": "local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end",
    # a list is gone when it is empty, and its expiry with it
    "push": "local function push(key, ...) if redis.call('RPUSH', key, ...) == select('#', ...) then keep(key) end end",
    # who has waited longest, of those that are still alive
    "next_waiter": """
local function next_waiter(waiters)
  while true do
    local waiter = redis.call('LPOP', waiters)
    if not waiter or alive(string.match(waiter, '^[^/]+')) then return waiter end
  end
end""",
    # hand a place to whoever is next
    "grant": """
local function grant(sem)
  local waiter = next_waiter(sem .. ':waiters')
  if not waiter then return false end
  redis.call('HSET', sem, 'holder', waiter)
  push(base .. 'wake:' .. waiter, 1)
  return true
end""",
    # tell the processes that watch a pipe's end, once; they ask again when they have looked (lab.cluster.watch)
    "ring": """
local function ring(inbox)
  local watchers = redis.call('HGETALL', inbox .. ':watchers')
  for i = 1, #watchers, 2 do
    local process = string.match(watchers[i], '^[^/]+')
    if alive(process) then push(base .. 'bell:' .. process, watchers[i] .. ' ' .. watchers[i + 1]) end
  end
  if #watchers > 0 then redis.call('DEL', inbox .. ':watchers') end
end""",
    # delete a list, and the large messages of the tickets in it: after the signature, a byte 1 and the key (claimcheck)
    "sweep": """
local function sweep(list)
  for _, message in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if string.byte(message, 33) == 1 then
      local luggage = string.sub(message, 34)
      if string.sub(luggage, 1, #base) == base then redis.call('UNLINK', luggage) redis.call('SREM', registry, luggage) end
    end
  end
  redis.call('DEL', list)
  redis.call('SREM', registry, list)
end""",
    # one holder fewer of a pipe's end; the peer of the last one reads end of file
    "hang_up": """
local function hang_up(tail, token)
  if redis.call('SREM', tail .. ':holders', token) == 1 and redis.call('EXISTS', tail .. ':holders') == 0 then
    local head = string.sub(tail, 1, -2) .. (string.sub(tail, -1) == 'a' and 'b' or 'a')
    if redis.call('EXISTS', head .. ':holders') == 1 then push(head, '') ring(head) end
    sweep(tail)
    redis.call('DEL', tail .. ':watchers')
    redis.call('SREM', registry, tail .. ':holders', tail .. ':watchers')
  end
end""",
}
_HEAD = "local processes, journal, me, ttl = KEYS[1], KEYS[2], ARGV[1], ARGV[2]\n"
_BASE = "local base = string.sub(processes, 1, -10)\n"
_REGISTRY = "local registry = base .. 'keys'\n"
_REFUSE = "error({err = 'LEASELOST ' .. me})"
_FENCE = f"if not redis.call('ZSCORE', processes, me) then {_REFUSE} end\n"
_ENTER = """
local number, lane = table.remove(ARGV), table.remove(ARGV)
if redis.call('HSET', journal, lane, number) == 1 then  -- the first of this lane, or sent by somebody who is not alive
  if redis.call('ZSCORE', processes, me) then
    local keys = string.sub(processes, 1, -10) .. 'keys'
    redis.call('SADD', keys, journal)
    redis.call('PEXPIRE', keys, ttl)
    redis.call('PEXPIRE', journal, ttl)
  else
    redis.call('HDEL', journal, lane)
    %s
  end
end
"""
_REPLY = """
local function effect()
%s
end
local reply = effect()
if reply ~= 1 and journal then redis.call('HSET', journal, lane, cmsgpack.pack({number, reply})) end
return reply
"""

SCRIPTS: list[Script] = []


class Script:
    """A Lua script that Redis runs between two other commands; KEYS and ARGV of the caller start at 3.

    The first two of each are known to it by name: ``processes`` (sorted set of the run's processes, id to lease expiry
    in milliseconds of the server's clock), ``journal`` (of the calling process), ``me`` (its id) and ``ttl`` (milliseconds
    that a key lives). So are ``base``, what the run's keys begin with, and ``registry``, the set of them. The helpers above
    can be called; making one takes as long as a short command, so what runs most often does without.

    Args:
        text: What it does. One that is numbered replies 1, which costs least, unless it has something else to say.
        fenced: Whether it is refused (LeaseLost) when it is sent by a process whose lease has lapsed.
        numbered: Whether it must not be run again when its reply is lost. False for what only reads, and for what has the
            same effect and reply when it is run twice.
        kept: Whether the journal keeps its reply; False where that is large and can be told from what it changed.
    """

    def __init__(self, text: str, fenced: bool = False, numbered: bool = True, kept: bool = True) -> None:
        self.word = NUMBERED if numbered else "EVALSHA"
        only_one = text.rstrip().endswith("return 1") and text.count("return") == 1
        body = text if only_one or not (numbered and kept) else _REPLY % text
        for name, helper in reversed(_HELPERS.items()):  # only those that are used, which is quicker to run
            if f"{name}(" in body:
                body = f"{helper}\n{body}"
        if "registry" in body:
            body = _REGISTRY + body
        if "base" in body:
            body = _BASE + body
        if numbered:
            body = _ENTER % (_REFUSE if fenced else "journal = nil") + body
        elif fenced:
            body = _FENCE + body
        self.text = _HEAD + body
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        SCRIPTS.append(self)


RECALL = Script(
    """
if redis.call('EXISTS', processes) == 0 then return -1 end
if not alive(me) then return redis.error_reply('LEASELOST ' .. me) end
local last = redis.call('HGET', journal, ARGV[3])
return last and (tonumber(last) and {last, 1} or cmsgpack.unpack(last))
""",
    numbered=False,
)
"""The last number of a lane that took effect, with its reply; nil if none did, -1 if Redis does not know the run.

A process that was taken for dead is refused, as its journal is gone: it cannot know what became of its last commands."""

REGISTER = Script("create(KEYS[3]) return 1")
"""Make a key known to its run, which renews its expiry from now on."""

PUSH = Script(
    """
if redis.call('RPUSH', KEYS[3], unpack(ARGV, 3)) == #ARGV - 2 then redis.call('PEXPIRE', KEYS[3], ttl) end
return 1
""",
    fenced=True,
)
"""Append to a list, all at once; no more than some thousand, which is what Lua can unpack."""


def translated(error: Exception) -> Exception:
    """The lab's error for an error reply of one of its scripts."""
    text = str(error)
    if "LEASELOST" in text:
        return LeaseLost(
            "This process was silent for longer than its lease and was taken for dead; what it sent now was refused.",
            "Its locks belong to others by now. Start the work again, or allow longer silences: CROSSHOST_LEASE=30",
        )
    if text.startswith(("NOPERM", "READONLY", "OOM", "MISCONF")):
        return BrokerUnreachable(f"Redis refuses the command: {text}.", "Look at its log, or at the user's ACL.")
    return error
