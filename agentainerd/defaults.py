"""One documented constant per default and limit, with its unit. Configuration keys and docs refer to these."""

# Where things are
LISTEN_HOST = "127.0.0.1"
LISTEN_PORT = 8081
SYSTEM_STATE_DIR = "/var/lib/agentainer"
SYSTEM_RUNTIME_DIR = "/run/agentainer"
CONTROL_SOCKET = "agentainer.sock"  # in the runtime folder; mode 0660
GATEWAY_SOCKET = "gateway.sock"  # in the runtime folder; what came over TCP, token needed
REDIS_SOCKET = "redis.sock"  # in the runtime folder; the embedded server
SOCKET_GROUP = "agentainer"
DAEMON_NAME = "host.docker.internal"  # what the daemon is called in every agent
DOCKER_HOST = "unix:///var/run/docker.sock"
SEED_TOKEN = "agentainer-default-token"  # the original's; refused on an address that is not loopback

# Agents
AGENT_PORT = 8000  # where neither --port nor the image's only EXPOSE says otherwise
NETWORK = "agentainer-network"
NETWORK_BRIDGE = "agentainer0"
ISOLATED_NETWORK = "agentainer-isolated"  # for agents without egress: no route out
ISOLATED_BRIDGE = "agentainer1"
STOP_GRACE_S = 10.0
HOLD_TIMEOUT_S = 10.0  # a request to an agent that is starting waits this long, then 202
MAX_HOLD_S = 60.0  # upper bound of `Prefer: wait=N` and of hold_timeout_s
REQUEST_TIMEOUT_S = 600.0  # from the request's last byte to the answer's first; and between two pieces of it
MAX_ENV_VARS = 50
MAX_NAME_CHARS = 63  # DNS label
MAX_IMAGE_CHARS = 256
MAX_REPLICAS = 64
RUNTIME_MEMORY_BYTES = 2 * 1024 * 1024 * 1024  # of an agent of the runtime image, which runs compilers and tests
RUNTIME_CPU = 10**9  # nano-CPUs
MEMORY_BYTES = 512 * 1024 * 1024
PIDS_LIMIT = 256
MIN_MEMORY_BYTES = 6 * 1024 * 1024  # what the engine accepts
FIRST_RESTART_S = 0.1  # after the first crash in a row, and after a run of RUN_WELL_S
RUN_WELL_S = 10.0
RESTART_BACKOFF_S = 1.0  # after those that follow: doubled with each, 2, 4, 8
MAX_RESTART_BACKOFF_S = 60.0
HEALTH_ENDPOINT = "/health"  # of a health check that names none; its times are durations, as in the original's files
HEALTH_INTERVAL = "30s"
HEALTH_TIMEOUT = "5s"
HEALTH_RETRIES = 3
HEALTH_START_PERIOD = "0s"
RESTART_RESET_S = 60.0  # a run this long forgets earlier crashes
CRASH_LOOP_LIMIT = 5  # crashes in a row, then `failed`
ENGINE_STOP_S = 20.0  # an engine that stops ends its containers first: 15 s by default, and then by force
CRASH_LOG_LINES = 20  # kept with a crash and shown with a failed start
READY_PROBE_INTERVAL_S = 0.02  # first; doubles to MAX_READY_PROBE_INTERVAL_S
MAX_READY_PROBE_INTERVAL_S = 0.5
MAX_EVENTS = 10_000  # kept; docs/events.md
EVENT_HEARTBEAT_S = 15.0  # a stream of events without events says that it lives
BREATH = 10  # control work on many agents lets the data plane go on after so many of them
MAX_REFUSALS = 3  # connections in a row that a replica refuses, then it gets no more until it accepts one again
DEATH_CONFIRM_S = 2.0  # how long the engine is given to say that an agent died that accepts connections
MAX_DEATH_CONFIRM_S = 10.0  # and one that accepts none

# The Redis that agents share
SHARED_REDIS_PORT = 6379  # on the gateways of the agents' networks
SHARED_REDIS_BYTES = 256 * 1024 * 1024

# Durable requests
MAX_REPLAY_BODY_BYTES = 10 * 1024 * 1024  # what can be queued
MAX_INLINE_BODY_BYTES = 32 * 1024  # in Redis; above: a spool file
MAX_MEMORY_BODY_BYTES = 256 * 1024  # waited for whole, and kept in memory while it is on its way; above: a file
MAX_HELD_BODY_BYTES = 64 * 1024 * 1024  # of all bodies that are waited for; above: each is passed on as it comes
MAX_STORED_RESPONSE_BYTES = 1024 * 1024  # head and body
MAX_PENDING = 10_000  # per agent
MAX_PENDING_BYTES = 256 * 1024 * 1024  # per agent
REPLAY_CONCURRENCY = 4  # per agent, reached by doubling from 1
MAX_ATTEMPTS = 8
RETRY_BACKOFF_S = 1.0  # doubling, jitter +-20 %
MAX_RETRY_BACKOFF_S = 300.0
MAX_RETRY_AFTER_S = 3600.0  # of an agent's Retry-After
MAX_AGE_S = 24 * 3600.0  # pending longer: failed, expired
RESPONSE_TTL_S = 24 * 3600.0  # stored answers and idempotency keys
FAILED_TTL_S = 7 * 24 * 3600.0  # dead letters
MAX_FAILED = 10_000  # dead letters per agent
MAX_FAILED_BYTES = 256 * 1024 * 1024  # dead letters per agent, bodies in the spool included
MAX_COMPLETED = 10_000  # stored answers per agent
MAX_COMPLETED_BYTES = 64 * 1024 * 1024  # stored answers per agent
HISTORY_LENGTH = 1000  # summaries of finished requests per agent
LEASE_S = 30.0  # of a replay; renewed every LEASE_S / 3 while its owner lives
COMMIT_BATCH = 128  # operations in one batch of the journal
COMMIT_BATCH_BYTES = 1024 * 1024
JOURNAL_TIMEOUT_S = 2.0  # no answer to a batch for so long: Redis is away
JOURNAL_WAIT_S = 5.0  # an ambiguous write waits this long for Redis to return before 503
JOURNAL_BACKLOG = 1000  # operations kept in memory while Redis is down, and that may wait for one that is slow
JOURNAL_BACKLOG_BYTES = 8 * 1024 * 1024
SPOOL_GRACE_S = 600.0  # a file of the spool that no record names is left alone for so long
MIN_FREE_DISK_BYTES = 512 * 1024 * 1024  # below: what would be queued gets 503
MAX_ARCHIVE_BYTES = (
    5 * 1024**3
)  # of a ZIP of a folder, all in all: of all that JOB_DISK_BYTES let a job leave, and no giants of holes
MAX_ARCHIVE_ENTRIES = 100_000  # files, folders and links in it

# Data plane
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADER_LINE_BYTES = 16 * 1024
MAX_HEADERS = 100
MAX_TARGET_BYTES = 16 * 1024
MAX_CHUNK_EXTENSION_BYTES = 4 * 1024  # in all of a request; dropped
MAX_TRAILER_BYTES = 8 * 1024  # in all of a request; dropped
HEAD_TIMEOUT_S = 10.0
BODY_IDLE_TIMEOUT_S = 30.0
BODY_GRACE_S = 10.0  # a body may be waited for so long in all, and longer by what came of it / MIN_BODY_RATE
MIN_BODY_RATE = 500  # bytes a second
KEEPALIVE_TIMEOUT_S = 75.0
WRITE_STALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 10_000
MAX_CONNECTIONS_PER_SOURCE = 256  # of one address; loopback and trusted proxies stand for many
MAX_IN_FLIGHT = 8_000  # per agent: a silent one must not take all connections from the others
MAX_IDLE_UPSTREAMS = 512  # per target
MAX_INTERIM_RESPONSES = 10
LISTEN_BACKLOG = 4096
DRAIN_TIMEOUT_S = 30.0

# Models
MODEL_KEY_VARIABLES = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
MAX_MODEL_BODY_BYTES = 32 * 1024 * 1024  # of a request: pictures are in it, as text
MODEL_OUTPUT_TOKENS = 4096  # of an answer whose request sets no bound: what a budget reserves for it
MODEL_BUDGET_WAIT_S = 60.0  # of a call for those under way, where together they may pass a budget
PROVIDER_CONNECT_TIMEOUT_S = 10.0  # for the connection, and as long for TLS
PROVIDER_REST_S = 30.0  # one that could not be reached is asked after the others of a list
PROVIDER_TIMEOUT_S = 600.0  # to the first byte of an answer, and between two: a model may think in silence

SPENT_DAYS_S = 400 * 24 * 3600  # what models were used for is kept so long, by day
SPENT_RUN_S = 30 * 24 * 3600  # and of a run or session, after its last call
MAX_SPENT_RUNS = 10_000  # runs whose cost is in memory

# Runs and sessions
MAX_ACTIVE_RUNS = 1000  # queued ones included
MAX_RUN_INPUT_CHARS = 1024 * 1024
MAX_RUN_OUTPUT_CHARS = 1024 * 1024  # of the answer's text, and of what goes into the conversation
MAX_RUN_EVENT_BYTES = 1024 * 1024  # one event
MAX_RUN_BYTES = 16 * 1024 * 1024  # all events of one run; then it is failed
MAX_RUN_STEPS = 1000
MAX_RUN_DELAY_S = 7 * 24 * 3600.0  # of a run that is to begin later
MAX_RUN_WALL_S = 24 * 3600.0
RUN_WALL_S = 3600.0  # where a run names no limit
RUN_ANSWER_TIMEOUT_S = 24 * 3600.0  # for an answer to what an agent asks for
RUN_CANCEL_GRACE_S = 10.0  # for an agent to end a run that was cancelled
RUN_READY_TIMEOUT_S = 120.0  # for an agent to become ready, once its run's turn has come
RUN_REJOINS = 5  # in a row without an event, after a connection to an agent that can be joined again broke
BRIDGE_CHECK_WALL_S = 120.0  # for each task of a check of a container's contract
MAX_BRIDGE_CHECK_WALL_S = 3600.0
RUN_TAIL_EVENTS = 256  # of a run under way that are kept in memory for its readers
RUN_HEARTBEAT_S = 15.0  # a stream of a run without events says that it lives
RUNS_KEEP_S = 7 * 24 * 3600.0
MAX_RUNS = 10_000  # ended ones that are kept
MAX_RUNS_BYTES = 128 * 1024 * 1024  # ended ones that are kept, with their events
RUN_KEY_TTL_S = 24 * 3600.0  # idempotency keys of runs
MAX_MODEL_CHARS = 256
MAX_SESSIONS = 10_000
SESSION_RUNS_SHOWN = 100  # with a session, the last ones; run_count counts all
MAX_SESSION_MESSAGES = 2000  # kept, the oldest go first
MAX_SESSION_BYTES = 16 * 1024 * 1024  # of the messages that are kept; beyond it half of that is
MAX_SESSION_SENT_BYTES = 4 * 1024 * 1024  # of the messages that an agent gets with a run
MAX_SESSION_STATE_BYTES = 256 * 1024  # metadata and state, each
MAX_SESSION_FIELD_CHARS = 256

# Jobs
JOB_IMAGE = "agentainer-runtime:latest"
JOB_MEMORY_BYTES = 2 * 1024 * 1024 * 1024
JOB_CPU = 10**9  # nano-CPUs
JOB_PIDS = 512
JOB_DISK_BYTES = 4 * 1024 * 1024 * 1024  # of its folder
JOB_WALL_S = 1800.0
JOBS_BYTES = 10 * 1024 * 1024 * 1024  # of all jobs that are over
JOB_ATTEMPTS = 2
JOBS_INTERVAL_S = 1.0
JOBS_SWEEP_S = 30.0
JOB_GRACE_S = 10.0  # between TERM and KILL, for a job that is ended
MAX_QUEUED_JOBS = 10_000
MAX_JOB_PRIORITY = 10
MAX_JOB_DELAY_S = 366 * 86400.0
MAX_JOB_RETENTION_S = 366 * 86400.0
MAX_JOB_FILES = 1000
MAX_JOB_FILE_NAME_BYTES = 1024
MAX_JOB_VARIABLE_CHARS = 32_768
MAX_JOB_LOG_BYTES = 64 * 1024 * 1024  # of each of its two logs; what is longer keeps its beginning
MIN_JOB_PIDS = 8
MAX_TEMPLATES = 1000
MAX_TEMPLATE_BYTES = 1024 * 1024
WEBHOOK_CONNECT_TIMEOUT_S = 5.0
WEBHOOK_TIMEOUT_S = 15.0  # of one attempt, from looking its name up to its answer
WEBHOOK_INTERVAL_S = 1.0  # the loop that begins what is due
WEBHOOK_AGAIN_S = 5.0  # where it could not even be tried: Redis or the engine is away
WEBHOOKS_AT_ONCE = 16
WEBHOOKS_AT_ONCE_OF_ONE = 2  # receiver
WEBHOOK_LOOKUPS = 2  # at once; each keeps a thread of the pool
MAX_WEBHOOK_ANSWER_BYTES = 64 * 1024
MAX_WEBHOOK_URL_CHARS = 2048
SYSTEM_TEMPLATES_DIR = "/etc/agentainer/templates"

# Control plane
MAX_API_BODY_BYTES = 10 * 1024 * 1024  # of JSON
API_REQUEST_TIMEOUT_S = 30.0  # for an answer that waits for a run, as AgentOS has it; no stream is cut
MAX_JSON_DEPTH = 64
MAX_API_CONNECTIONS = 1024  # a reader of a stream holds one
MAX_BUILD_CONTEXT_BYTES = 500 * 1024 * 1024
MAX_BUILD_CONTEXT_FILES = 50_000
PAGE_LIMIT = 100
TOKEN_LIFETIME_S = 90 * 86400.0
MAX_TOKEN_LIFETIME_S = 3660 * 86400.0
MAX_TOKEN_GRACE_S = 30 * 86400.0
AUDIT_FILE_BYTES = 64 * 1024 * 1024
AUDIT_KEEP_BYTES = 1024 * 1024 * 1024
AUDIT_KEEP_S = 366 * 86400.0
MAX_PAGE_LIMIT = 1000

# The daemon's own log
LOG_FILE_BYTES = 16 * 1024 * 1024  # of one file; then it is set aside
LOG_FILE_AGE_S = 24 * 3600.0  # or when it is so old
LOG_FILES = 14  # that are kept, with the one that is written
LOG_HEARTBEAT_S = 15.0  # a followed log without entries says that it lives
LOG_LINES = 100  # shown where nobody says how many

# Loops
STATE_SYNC_INTERVAL_S = 10.0
IDLE_INTERVAL_S = 1.0
METRICS_INTERVAL_S = 10.0
REPLAY_INTERVAL_S = 5.0
RETENTION_INTERVAL_S = 30.0
REDIS_START_TIMEOUT_S = 60.0  # loading a large journal takes a while
ENGINE_TIMEOUT_S = 30.0
