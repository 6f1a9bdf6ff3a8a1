"""The journal as it is meant, in a dictionary: what each verb does to the requests, and what it answers.

Knows nothing of Redis. `Entry.place` is live (one field, a client waits), held (processing, a full record), pending, failed
or completed; a request that the journal has forgotten has no entry.
"""

import math
from dataclasses import dataclass

MAX_AGE_S, RESPONSE_TTL_S, FAILED_TTL_S, TOMBSTONE_S = 24 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0, 24 * 3600.0


@dataclass
class Entry:
    agent: str
    id: str
    seq: int
    size: int
    expires: float
    policy: str
    repeatable: bool
    scope: str = ""
    print: str = ""
    place: str = ""
    reason: str = ""
    attempt: int = 1
    dup: bool = False
    due: float = 0.0
    until: float = math.inf
    lease: int = 0
    ended: float = 0.0


class Reference:
    def __init__(self):
        self.entries, self.keys, self.gone, self.past = {}, {}, {}, {}

    def of(self, agent, *places):
        found = [one for one in self.entries.values() if one.agent == agent and one.place in places]
        return sorted(found, key=lambda one: one.seq)

    def is_free(self, entry):
        return entry.id not in self.entries or entry.reason == "live"

    # ---- moves

    def pend(self, entry, reason, due):
        entry.place, entry.reason, entry.due = "pending", reason, due

    def bury(self, entry, reason, now):
        entry.place, entry.reason, entry.ended = "failed", reason, now
        self.free_key(entry)

    def free_key(self, entry):
        if self.keys.get(entry.scope, ("",))[0] == entry.id:
            del self.keys[entry.scope]

    def holds(self, entry, lease):
        return self.entries.get(entry.id) is entry and entry.place == "held" and entry.lease == lease

    # ---- verbs of the data plane

    def begin(self, entry):
        if entry.agent not in self.gone:
            self.entries[entry.id] = entry
            entry.place, entry.reason = "live", "live"

    def reserve(self, entry):
        if entry.agent in self.gone:
            return "gone"
        if entry.scope:
            first, print_, done = self.keys.get(entry.scope, ("", "", False))
            known = self.entries.get(first)
            if first and (known or done):
                if print_ != entry.print:
                    return "mismatch"
                words = {"pending": "pending", "held": "in_flight", "completed": "done", "failed": "failed"}
                return words[known.place] if known else "failed"
            self.keys[entry.scope] = (entry.id, entry.print, False)
        self.entries[entry.id] = entry
        entry.place, entry.reason, entry.lease = "held", "live", 1
        return "new"

    def accept(self, entry, due, most, most_bytes):
        if entry.agent in self.gone:
            return "gone"
        if not self.is_free(entry):
            return "ok" if entry.place == "pending" else "late"
        waiting = self.of(entry.agent, "pending")
        if len(waiting) >= most or sum(one.size for one in waiting) + entry.size > most_bytes:
            return "full"
        if entry.id not in self.entries:
            entry.lease = 0  # a new record, also where an earlier one was forgotten with its agent
        self.entries[entry.id] = entry
        entry.attempt -= 0 if due > 0 or entry.dup else 1
        self.pend(entry, "retry_wait" if due > 0 else "queued", due)
        return "ok"

    def revoke(self, entry):
        if self.entries.get(entry.id) is entry and (
            entry.place == "pending" or entry.place + entry.reason == "heldlive"
        ):
            self.free_key(entry)
            del self.entries[entry.id]

    def settle_live(self, entry, completed, now):
        if self.entries.get(entry.id) is entry and entry.place == "live":
            if completed:
                del self.entries[entry.id]
                self.past[entry.agent] = self.past.get(entry.agent, 0) + 1
            else:
                self.bury(entry, "interrupted", now)

    def settle_held(self, entry, lease, completed, now, response):
        if not self.holds(entry, lease):
            return
        if not completed:
            self.bury(entry, "attempts", now)
            return
        entry.place, entry.reason = "completed", "answered" if entry.reason == "live" else "replay"
        entry.ended, entry.size = now, response
        self.past[entry.agent] = self.past.get(entry.agent, 0) + 1
        if self.keys.get(entry.scope, ("",))[0] == entry.id:
            self.keys[entry.scope] = (entry.id, entry.print, True)

    # ---- verbs of replay

    def claim(self, agent, limit, now, until, ordered):
        if agent in self.gone:
            return []
        for entry in self.of(agent, "held"):
            if entry.until <= now:
                entry.dup = True
                self.pend(entry, "retry_wait", 0.0)
        waiting = self.of(agent, "pending")
        ready = [one for one in waiting if one.due <= now]
        for entry in ready:
            entry.due = 0.0
        if ordered:
            limit = min(limit, 1)
            if any(one.until < math.inf for one in self.of(agent, "held")) or (ready and waiting[0] is not ready[0]):
                return []
        taken = []
        for entry in ready:
            if len(taken) == limit:
                break
            if entry.expires <= now:
                self.bury(entry, "expired", now)
                continue
            entry.place, entry.reason, entry.until = "held", "replay", until
            entry.attempt, entry.lease = entry.attempt + 1, entry.lease + 1
            taken.append(entry)
        return taken

    def retry(self, entry, lease, attempts, due, dup):
        if self.holds(entry, lease):
            entry.attempt, entry.dup = attempts, dup
            self.pend(entry, "retry_wait" if attempts > 0 else "queued", due)

    def renew(self, entry, lease, until):
        if self.holds(entry, lease):
            entry.until = until

    # ---- verbs of people and loops

    def cancel(self, entry, now):
        was = entry.place
        if was == "pending":
            self.bury(entry, "cancelled", now)
        return was

    def requeue(self, entry, now):
        was = entry.place
        if was == "failed":
            entry.dup = entry.attempt > 0 and entry.reason != "cancelled"
            entry.attempt, entry.expires = 0, now + MAX_AGE_S
            self.pend(entry, "queued", 0.0)
        elif was == "pending":
            entry.due = 0.0
        return was

    def purge(self, agent, place, now):
        found = self.of(agent, place)
        for entry in found:
            self.cancel(entry, now)
            if place == "failed":
                del self.entries[entry.id]
        return len(found)

    def forget(self, agent, now):
        found = self.of(agent, "pending", "held", "failed", "completed")
        for entry in found:
            self.keys.pop(entry.scope, None)
        self.entries = {id_: one for id_, one in self.entries.items() if one.agent != agent}
        self.past.pop(agent, None)
        self.gone[agent] = now
        return len(found)

    def sweep(self, now):
        before = len(self.entries)
        expired = [one for one in self.entries.values() if one.place == "pending" and one.expires <= now]
        for entry in expired:
            self.bury(entry, "expired", now)
        kept_s = {"completed": RESPONSE_TTL_S, "failed": FAILED_TTL_S}
        self.entries = {
            id_: one for id_, one in self.entries.items() if not one.ended or one.ended > now - kept_s.get(one.place, math.inf)
        }  # fmt: skip
        tombstones = [agent for agent, at in self.gone.items() if at <= now - TOMBSTONE_S]
        for agent in tombstones:
            del self.gone[agent]
        return len(expired) + before - len(self.entries) + len(tombstones)

    def restart(self, now):
        """Another daemon begins; return how many were interrupted, of unknown outcome, and will be sent again."""
        counts = {"interrupted": 0, "outcome_unknown": 0, "retry_wait": 0}
        for entry in [one for one in self.entries.values() if one.place in ("live", "held")]:
            end = "interrupted"
            if entry.reason == "replay":
                end = "outcome_unknown" if entry.policy == "safe" and not entry.repeatable else "retry_wait"
            elif entry.place == "held" and entry.policy == "at_least_once":
                end = "retry_wait"
            counts[end] += 1
            if end == "retry_wait":
                entry.dup = True
                self.pend(entry, "retry_wait", 0.0)
            else:
                self.bury(entry, end, now)
        return tuple(counts.values())
