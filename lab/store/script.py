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

from lab.errors import BrokerUnreachable, KeyLost, LeaseLost, RedisFull
from lab.store.wire import HEAD_SIZE, KIND_AT, TAG_SIZE, TICKET

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
    # wake those who have waited longest for room in a list (backlog)
    "make_way": """
local function make_way(list, many)
  local waiters = list .. ':room:waiters'
  for _, waiter in ipairs(redis.call('ZRANGEBYSCORE', waiters, '-inf', '+inf', 'LIMIT', 0, many)) do
    redis.call('ZREM', waiters, waiter)
    local process = string.match(waiter, '^[^/]+')
    if alive(process) then
      local inbox = process == waiter and redis.call('HGET', base .. 'process:' .. process, 'inbox')
      if inbox then push(inbox, process .. ' ') end  -- its supervisor looks again
      if process ~= waiter then push(base .. 'wake:' .. waiter, 1) end
    end
  end
end""",
    # delete a slice of a list, and the large messages that the clear parts of the tickets in it name (wire, claimcheck);
    # whether that was all of it
    "clear": f"""
local function clear(list)
  local bytes = 0
  for _ = 1, 200 do
    local message = redis.call('LPOP', list)
    if not message then redis.call('SREM', registry, list) return true end
    if string.byte(message, {KIND_AT + 1}) == {TICKET} then
      local luggage = string.sub(message, {HEAD_SIZE + 1}, -{TAG_SIZE + 1})
      if string.sub(luggage, 1, #base) == base then redis.call('UNLINK', luggage) redis.call('SREM', registry, luggage) end
    end
    bytes = bytes + #message
    if bytes > 262144 then break end
  end
  return false
end""",
    # delete a list; a long one is out of the way at once under another name, and goes bit by bit with the beats (run.BEAT)
    "sweep": """
local function sweep(list)
  if clear(list) or redis.call('EXISTS', list) == 0 then redis.call('SREM', registry, list) return end
  local swept = list .. ':swept:' .. now()
  redis.call('RENAME', list, swept)
  redis.call('SREM', registry, list)
  create(swept)
  redis.call('SADD', base .. 'swept', swept)
  create(base .. 'swept')
end""",
    # take the first messages of a list and keep them beside it, with the number that was got before (ahead)
    "hold": """
local function hold(list, got, many)
  local held = list .. ':held'
  if redis.call('LINDEX', held, 0) == got then return redis.call('LRANGE', held, 1, -1) end  -- that reply was lost
  redis.call('DEL', held)
  local taken = redis.call('LPOP', list, many) or {}
  if #taken > 0 then
    redis.call('RPUSH', held, got, unpack(taken))
    create(held)
  end
  return taken
end""",
    # lay back what is held of a list, but for what was got
    "lay_back": """
local function lay_back(list, got)
  local held = list .. ':held'
  local before = tonumber(redis.call('LINDEX', held, 0))
  if not before then return end
  for _ = math.max(got - before, 0) + 1, redis.call('LLEN', held) - 1 do
    redis.call('LPUSH', list, redis.call('RPOP', held))
  end
  keep(list)
  redis.call('DEL', held)
  redis.call('SREM', registry, held)
end""",
    # somebody reads a list no longer alone; whoever waits for that goes on (lab.cluster.reader)
    "read_by_others": """
local function read_by_others(list, got)
  local reader = list .. ':reader'
  lay_back(list, got)
  while true do
    local ticket = redis.call('LPOP', reader .. ':waiters')
    if not ticket then return end
    push(base .. 'wake:' .. ticket, 1)
  end
end""",
    # one holder fewer of a pipe's end; the peer of the last one reads end of file
    "hang_up": """
local function hang_up(tail, token)
  if redis.call('SREM', tail .. ':holders', token) == 1 and redis.call('EXISTS', tail .. ':holders') == 0 then
    local head = string.sub(tail, 1, -2) .. (string.sub(tail, -1) == 'a' and 'b' or 'a')
    if redis.call('EXISTS', head .. ':holders') == 1 then push(head, '') ring(head) end
    sweep(tail)
    sweep(tail .. ':held')
    make_way(tail, 1000)  -- who waits to send there hears that nobody reads
    redis.call('DEL', tail .. ':watchers', tail .. ':room', tail .. ':room:waiters')
    redis.call('SREM', registry, tail .. ':holders', tail .. ':watchers', tail .. ':room', tail .. ':room:waiters')
  end
end""",
    # one holder fewer of a shared object (lab.cluster.share); with the last one it goes
    "let_go": """
local function let_go(name, holder)
  local held = base .. 'share:' .. name
  if redis.call('SREM', held, holder) == 0 or redis.call('EXISTS', held) == 1 then return end
  local pieces = tonumber(redis.call('GET', held .. ':pieces') or 0) or 0
  for n = 0, pieces - 1 do
    redis.call('UNLINK', held .. ':' .. n)
    redis.call('SREM', registry, held .. ':' .. n)
  end
  redis.call('UNLINK', held .. ':pieces')
  redis.call('SREM', registry, held, held .. ':pieces')
end""",
    # a slice of a burial (run.BURY), which begins with the death in the same script; whether it was the last. What the dead
    # held grows less from slice to slice and never more: it takes nothing any more, as it is in ``processes`` no longer.
    "dig": """
local function dig(dead)
  local grave = base .. 'grave:' .. dead
  local mailbox, letter, after = unpack(redis.call('HMGET', grave, 'mailbox', 'letter', 'after'))
  if not mailbox then redis.call('SREM', base .. 'graves', dead) return true end
  if after ~= '' then  -- by name and not by a cursor, which means nothing any more to a Redis that was started again
    local locks = redis.call('ZRANGEBYLEX', base .. 'locks', after, '+', 'LIMIT', 0, 100)
    for _, lock in ipairs(locks) do
      local holder = redis.call('HGET', lock, 'holder')
      if holder and string.match(holder, '^[^/]+') == dead and not grant(lock) then
        redis.call('HSET', lock, 'value', 1, 'holder', '')
      end
    end
    redis.call('HSET', grave, 'after', #locks == 100 and '(' .. locks[100] or '')
    if #locks == 100 then return false end
  end
  local ends = redis.call('SPOP', base .. 'ends:' .. dead, 10)
  for _, held in ipairs(ends) do hang_up(string.match(held, '^(.+) (.+)$')) end
  if #ends == 10 then return false end
  local children = redis.call('SPOP', base .. 'children:' .. dead, 100)
  for _, child in ipairs(children) do
    local inbox = alive(child) and redis.call('HGET', base .. 'process:' .. child, 'inbox')
    if inbox then push(inbox, child .. ' ') end  -- its supervisor looks who is still there
  end
  if #children == 100 then return false end
  local hands = redis.call('SPOP', base .. 'hands:' .. dead, 10)
  for _, hand in ipairs(hands) do sweep(hand) end
  if #hands == 10 then return false end
  local shares = redis.call('SPOP', base .. 'shares:' .. dead, 10)
  for _, held in ipairs(shares) do let_go(string.match(held, '^(%S+) (%S+)$')) end
  if #shares == 10 then return false end
  local reads = redis.call('HSCAN', base .. 'reads:' .. dead, 0, 'COUNT', 10)[2]
  if #reads > 0 then
    local ledger = {}
    for number in string.gmatch(redis.call('HGET', grave, 'ledger') or '', '%d+') do ledger[#ledger + 1] = number end
    for i = 1, #reads, 2 do
      local list, got, reader = reads[i], reads[i + 1], reads[i] .. ':reader'
      local alone, slot = unpack(redis.call('HMGET', reader, 'alone', 'slot'))
      if alone == dead then
        redis.call('DEL', reader)
        -- its host knows, or what it said last, before whatever else it has sent
        read_by_others(list, tonumber(ledger[tonumber(slot or -1) + 1] or got))
      end
      redis.call('HDEL', base .. 'reads:' .. dead, list)
    end
    return false
  end
  for _, kind in ipairs({'hands:', 'shares:', 'reads:', 'process:', 'ends:', 'children:', 'mail:', 'bell:', 'grave:'}) do
    redis.call('UNLINK', base .. kind .. dead)
    redis.call('SREM', registry, base .. kind .. dead)
  end
  redis.call('SREM', base .. 'graves', dead)
  if mailbox ~= '' then
    redis.call('SREM', base .. 'children:' .. string.match(mailbox, '[^:]+$'), dead)
    pcall(function() push(mailbox, letter) end)  -- last: who hears of the end finds everything free
  end
  return true
end""",
    # begin a burial
    "bury": """
local function bury(dead, mailbox, letter, ended_well, ledger)
  redis.call('ZREM', processes, dead)
  -- without a journal, what it still sends is refused
  redis.call('UNLINK', base .. 'journal:' .. dead)
  redis.call('SREM', registry, base .. 'journal:' .. dead)
  -- who ended well has left its locks locked, for another to release, as in multiprocessing
  redis.call('HSET', base .. 'grave:' .. dead, 'mailbox', mailbox, 'letter', letter, 'after', ended_well and '' or '-',
    'ledger', ledger or '')
  create(base .. 'grave:' .. dead)
  redis.call('SADD', base .. 'graves', dead)
  create(base .. 'graves')
  return dig(dead)
end""",
}
_UNLESS_FULL, _ALWAYS = "#!lua\n", "#!lua flags=allow-oom\n"
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
        grows: Whether Redis refuses it when it has no memory left (``maxmemory``), before it has done anything; then whoever
            runs it waits, so it must not be posted. The others free memory, or are what those who do depend on.
    """

    def __init__(
        self, text: str, fenced: bool = False, numbered: bool = True, kept: bool = True, grows: bool = False
    ) -> None:
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
        self.text = f"{_UNLESS_FULL if grows else _ALWAYS}{_HEAD}{body}"
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
    if text.startswith("OOM"):
        return RedisFull(
            f"Redis has no memory left (maxmemory): {text}.", "Give it more, or have read what lies there."
        )
    if "TOOMANY" in text:  # of a semaphore, to whoever has released it
        return error
    if "KEYLOST " in text:
        return KeyLost.gone(text.partition("KEYLOST ")[2].split()[0], "it is not there any more")
    if text.startswith("WRONGTYPE") or "user_script" in text or " is not a" in text or "overflow" in text:
        return KeyLost(f"Redis cannot use what lies under a key of this program: {text}.")
    return BrokerUnreachable(f"Redis refuses the command: {text}.", "Look at its log, or at the user's ACL.")
