"""Every key in Redis: what it holds, and who writes it. Nothing has a TTL but `idem:`, `run-key:` and `spent`, which no index
names: a record that expired by itself would leave its id behind in an index. The scripts of store/lua spell the same names, but
for those of runs and of `spent`, which are told them.

All names begin with `agentainer:`. `{agent}` is an agent's id, `{id}` a request's.

    key            type    what                                                                       written by
    install_id     string  which journal this is; <state>/journal.id has the same                     open.lua
    schema         string  SCHEMA of the version that wrote last; a later one than ours is not opened            open.lua
    epoch          string  number of the daemon's start that may write; all others are refused        open.lua
    batch          hash    number and results of the last batch applied: each runs exactly once       batch.lua
    agents         hash    agent id -> JSON of model.agents.Agent                                      *_agent.lua
    names          hash    agent's name -> agent id; name of a replica -> agent id/number              *_agent.lua
    deployments    hash    name -> JSON of model.deployments.DeploymentRecord                          *_deployment.lua
    known          set     ids of the agents that have any of the keys below                           batch, forget
    gone           zset    ids of removed agents by time of removal; a day long                        forget, sweep
    live:{agent}   hash    request id -> packed record of an ordinary request that a client waits for  batch.lua
    hist:{agent}   list    packed summaries of completed requests, newest first, HISTORY_LENGTH        batch.lua
    r:{id}         hash    a full record, see below                                                    all scripts
    q:{agent}      zset    pending, due now: id by seq (order of arrival)                              records.lua
    d:{agent}      zset    pending, due later: id by due time                                          records.lua
    lease:{agent}  zset    processing with a full record: id by the lease's end (+inf: live)           records.lua
    dead:{agent}   zset    failed: id by time of failure                                               records.lua
    done:{agent}   zset    completed, answer stored: id by time of completion                          batch.lua
    x              zset    deadlines of all pending requests: id by expires                            records.lua
    n:{agent}      hash    pending, pending_bytes, dead_bytes, done_bytes                              records.lua
    tokens         hash    token's id -> JSON of model.tokens.NamedToken                               put_tokens, remove_token
    events         stream  the last MAX_EVENTS events; field e: JSON of model.events.Event             append_events.lua
    usage:{agent}  string  history of its metrics, of fixed length; see store/metrics.py               put_metrics.lua
    run:{id}       string  JSON of model.runs.Run                                                     write_runs.lua
    run-events:{id} stream the events of a run, ids <seq>-0; field e, see store/runs.py                write_runs.lua
    runs           zset    all runs that are kept: id by time of creation                              write_runs.lua
    runs-active    zset    those that have not ended: id by time of creation                           write_runs.lua
    runs-ended     zset    those that have: id by time of their end                                    write_runs.lua
    runs-sizes     hash    id of an ended run -> bytes of its events                                   write_runs.lua
    runs:{agent}   zset    the runs of an agent: id by time of creation                                write_runs.lua
    run-key:{key}  string  "run id fingerprint"; PX RUN_KEY_TTL_S                                      write_runs.lua
    job:{id}       string  JSON of model.jobs.Job, of the run with this id                            write_runs.lua
    jobs           zset    all jobs that are kept: id by time of creation                              write_runs.lua
    jobs-ended     zset    those that are over, which are not in runs-ended: id by time of their end   write_runs.lua
    session:{id}   string  JSON of model.sessions.Session                                             write_runs.lua
    sessions       zset    all sessions: id by time of creation                                        write_runs.lua
    session-messages:{id} stream the last MAX_SESSION_MESSAGES messages, ids <number>-0; field e: JSON  write_runs.lua
    session-runs:{id} zset the runs of a session: id by time of creation                               write_runs.lua
    spent:{day}    hash    of a day (UTC): agent id|provider/model|counter -> number; EX SPENT_DAYS_S       add_usage.lua
    spent-run:{id}, spent-session:{id}  hash  counter -> number; EX SPENT_RUN_S from the last call on      add_usage.lua
    spent-batch    string  the last batch of these that was added: each is added once                  add_usage.lua
    idem:{scope}   string  "id fingerprint", and " done" once answered; PX RESPONSE_TTL_S after that   batch.lua

Fields of `r:{id}`: agent, state, reason, seq, size (bytes that count in n:), expires, due, attempt, dup ("1": an earlier
attempt may have run), spool, scope (of its idempotency key), owner (epoch) and lease (number) of its holder, meta (packed:
what never changes), head, body; once it ended: finished, error, result (packed), response (packed). Times are epoch
seconds as decimal text.

The channel `logs:stream`, which the original names so, tells what the daemon logs.

A live request is one field instead of a record, because it is written and removed again within milliseconds: `batch.lua`
moves it to a record of its own when it is queued or fails. An id is in exactly one of live, q, d, lease, dead, done.
"""

PREFIX = "agentainer:"

SCHEMA = 1
"""Grows when this table changes in a way that an older version could not read. Whoever raises it brings what an older one
left up to date in `recovery.begin_epoch`, and adds a state made by that version to tests/states."""

INSTALL_ID = PREFIX + "install_id"
EPOCH = PREFIX + "epoch"
BATCH = PREFIX + "batch"
AGENTS = PREFIX + "agents"
NAMES = PREFIX + "names"
DEPLOYMENTS = PREFIX + "deployments"
KNOWN = PREFIX + "known"
DEADLINES = PREFIX + "x"
TOKENS = PREFIX + "tokens"
EVENTS = PREFIX + "events"
RUNS = PREFIX + "runs"
RUNS_ACTIVE = PREFIX + "runs-active"
RUNS_ENDED = PREFIX + "runs-ended"
RUNS_SIZES = PREFIX + "runs-sizes"
JOBS = PREFIX + "jobs"
JOBS_ENDED = PREFIX + "jobs-ended"
SESSIONS = PREFIX + "sessions"
LOG_CHANNEL = "logs:stream"


def run(run_id: str) -> str:
    """Key of a run."""
    return f"{PREFIX}run:{run_id}"


def run_events(run_id: str) -> str:
    """Key of the events of a run."""
    return f"{PREFIX}run-events:{run_id}"


def agent_runs(agent_id: str) -> str:
    """Key of the index of an agent's runs."""
    return f"{PREFIX}runs:{agent_id}"


def run_key(scope: str) -> str:
    """Key of an idempotency key of runs."""
    return f"{PREFIX}run-key:{scope}"


def job(run_id: str) -> str:
    """Key of a job, which is of the run with this id."""
    return f"{PREFIX}job:{run_id}"


def session(session_id: str) -> str:
    """Key of a session."""
    return f"{PREFIX}session:{session_id}"


def session_messages(session_id: str) -> str:
    """Key of the messages of a session."""
    return f"{PREFIX}session-messages:{session_id}"


def session_runs(session_id: str) -> str:
    """Key of the index of a session's runs."""
    return f"{PREFIX}session-runs:{session_id}"


def spent(day: str) -> str:
    """Key of what calls to models used on a day, such as 2026-11-21."""
    return f"{PREFIX}spent:{day}"


def spent_run(run_id: str) -> str:
    """Key of what the calls of a run used."""
    return f"{PREFIX}spent-run:{run_id}"


def spent_session(session_id: str) -> str:
    """Key of what the calls of a session used."""
    return f"{PREFIX}spent-session:{session_id}"


def metrics(agent_id: str) -> str:
    """Key of the history of an agent's metrics."""
    return f"{PREFIX}usage:{agent_id}"


def record(request_id: str) -> str:
    """Key of the full record of a request."""
    return f"{PREFIX}r:{request_id}"


def live(agent_id: str) -> str:
    """Key of the requests of an agent that a client waits for."""
    return f"{PREFIX}live:{agent_id}"


def history(agent_id: str) -> str:
    """Key of the summaries of an agent's completed requests."""
    return f"{PREFIX}hist:{agent_id}"


def queued(agent_id: str) -> str:
    """Key of the index of an agent's requests that are due now."""
    return f"{PREFIX}q:{agent_id}"


def delayed(agent_id: str) -> str:
    """Key of the index of an agent's requests that are due later."""
    return f"{PREFIX}d:{agent_id}"


def leased(agent_id: str) -> str:
    """Key of the index of an agent's requests in processing that have a full record."""
    return f"{PREFIX}lease:{agent_id}"


def dead(agent_id: str) -> str:
    """Key of the index of an agent's dead letters."""
    return f"{PREFIX}dead:{agent_id}"
