//! Every bound in one place, each with its reason (I5). A bound that users may move
//! is the default here and is moved in the config; the others are hard.

/// Deepest tenant path: `org/team/app/user`.
pub const TENANT_DEPTH_MAX: usize = 4;
/// Longest tenant path: fits a metric label and an index page.
pub const TENANT_LEN_MAX: usize = 128;
/// Tenants the kernel keeps counters for at once; idle ones leave first. 100,000
/// at about 300 bytes is 30 MB, the size of everything else together.
pub const TENANTS_MAX: usize = 100_000;
/// Tenants that get a metric label of their own; the rest are counted as `other`,
/// so that a client cannot blow up the metric page by inventing users.
pub const TENANT_LABELS_MAX: usize = 200;

/// Segments of an agent's name: `type/key`.
pub const AGENT_DEPTH_MAX: usize = 2;
/// Types of agents that get a metric label of their own; the rest are counted as `other`,
/// likewise. Nobody writes more by hand.
pub const AGENT_LABELS_MAX: usize = 200;

/// Calls waiting for one engine (default). 10,000 waiting calls at 20 req/s are
/// eight minutes of work: more is not a queue but a promise nobody can keep.
pub const QUEUE_LEN_MAX: usize = 10_000;
/// Calls that all tenants below one root segment may have waiting for one engine
/// (default).
pub const TENANT_QUEUE_LEN_MAX: usize = 2_000;
/// Body bytes waiting for one engine (default): an eighth of a 2 GiB pod.
pub const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// Longest wait in a queue (default): under the 60 s after which most HTTP clients
/// and load balancers give up by themselves.
pub const QUEUE_WAIT_MS_MAX: u64 = 50_000;
/// Calls known to the kernel at once, waiting and running. The hard ceiling above
/// all engines' queues; 200,000 at about 500 bytes is 100 MB.
pub const CALLS_MAX: usize = 200_000;

/// Largest request body (default): a 1M-token prompt with room for images.
pub const BODY_BYTES_MAX: u64 = 32 << 20;
/// Largest body of a pass-through upload (default): OpenAI's own file limit.
pub const UPLOAD_BYTES_MAX: u64 = 512 << 20;
/// Uploads that pass through at once (default). Each holds a place on its engine while it
/// arrives, which a client may drag out: few beside the calls an engine takes.
pub const UPLOADS_MAX: usize = 32;
/// Of these, uploads of one root tenant (default): half, so that nobody takes them all.
pub const TENANT_UPLOADS_MAX: usize = 16;
/// So long all in all may the client of an upload keep it waiting (default), beside the
/// time that its bytes take at [`UPLOAD_BYTES_PER_S_MIN`].
pub const UPLOAD_STALL_MS_MAX: u64 = 30_000;
/// Slowest pace at which an upload may arrive (default): a tenth of a poor mobile uplink.
pub const UPLOAD_BYTES_PER_S_MIN: u64 = 16 << 10;
/// Longest wait for a request body (default).
pub const BODY_WAIT_MS_MAX: u64 = 30_000;
/// Largest engine answer held for translation (default). Untranslated answers are
/// streamed and have no such limit.
pub const ANSWER_BYTES_MAX: u64 = 32 << 20;
/// All bytes held for calls in flight (default): bodies, windows, answers.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Bytes held for one stream between engine and client: what hyper buffers on either
/// side. One TCP window's worth; more only adds delay before backpressure bites.
pub const STREAM_WINDOW_BYTES: usize = 64 << 10;
/// Longest line of an event stream: one base64 image delta. A longer one is garbage.
pub const SSE_LINE_BYTES_MAX: usize = 8 << 20;
/// Largest `usage` object: real ones are under 1 KiB.
pub const USAGE_BYTES_MAX: usize = 8 << 10;
/// Longest error body read from an engine to quote its message.
pub const ENGINE_ERROR_BYTES_MAX: usize = 64 << 10;
/// Nesting of JSON in a request: deeper is an attack on the stack.
pub const JSON_DEPTH_MAX: usize = 128;
/// Fields of one object that wire takes apart. Protocol objects have under 50; without
/// a bound a body of `{"":0,"":0,..` would cost ten times its size in bookkeeping.
pub const JSON_FIELDS_MAX: usize = 1_024;
/// Items of one list that wire takes apart (messages, parts, tools), likewise.
pub const JSON_ITEMS_MAX: usize = 65_536;
/// Choices one call may ask for: OpenAI's own limit.
pub const CHOICES_MAX: u32 = 128;
/// Longest model name: the longest on Hugging Face are under 100, file paths of local
/// engines longer; it becomes a metric label and a map key.
pub const MODEL_NAME_BYTES_MAX: usize = 512;
/// Longest user id that is looked at for run affinity; a longer one is none.
pub const USER_BYTES_MAX: usize = 512;
/// Longest message quoted from an engine's error body.
pub const ENGINE_MESSAGE_CHARS_MAX: usize = 1_000;

/// Connections from clients (default): below the usual 20,000 descriptors, as each
/// may need one upstream.
pub const CONNECTIONS_MAX: usize = 8_000;
/// Streams a client may have open on one HTTP/2 connection: as many as a busy client
/// sends at once, and few enough that one connection is not a way around the limits.
pub const HTTP2_STREAMS_MAX: u32 = 1_000;
/// Idle upstream connections kept per replica.
pub const POOL_IDLE_MAX: usize = 256;
/// How long one is kept: under the 5 s keep-alive of uvicorn, the most common engine
/// front, so that a reused connection is seldom one that is just being closed.
pub const POOL_IDLE_MS_MAX: u64 = 4_000;
/// A connect that takes longer has failed (default).
pub const CONNECT_MS_MAX: u64 = 5_000;
/// Longest silence before an engine's first byte (default). Long prompts on a busy
/// engine do take minutes.
pub const FIRST_TOKEN_MS_MAX: u64 = 300_000;
/// Longest silence between two pieces of an answer (default).
pub const STALL_MS_MAX: u64 = 60_000;
/// A client that takes nothing for this long is cut (default).
pub const CLIENT_STALL_MS_MAX: u64 = 60_000;
/// Headers must arrive within this time: the cure for slow-loris clients.
pub const HEADER_WAIT_MS_MAX: u64 = 15_000;
/// A client's connection may rest this long between two requests: longer than the 60 s
/// after which the usual load balancers let go of theirs, so that it is never us who
/// close a connection just as it is taken up again.
pub const CLIENT_IDLE_MS_MAX: u64 = 75_000;
/// After the last answer a client has this long to close its side, so that what it was sending
/// meanwhile does not cost it the end of that answer (RFC 9112 section 9.6): many times a
/// round trip around the world.
pub const LINGER_MS_MAX: u64 = 1_000;
/// And may send so much until then: HTTP/2's usual window. Who sends more is not listening.
pub const LINGER_BYTES_MAX: usize = 64 << 10;
/// Largest block of request headers.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Attempts for one call over all targets (default).
pub const ATTEMPTS_MAX: u32 = 3;
/// The most attempts that may be configured, and that a call's record lists.
pub const ATTEMPTS_CEILING: u32 = 20;
/// Retries are at most this share of first attempts, in percent (default): the usual
/// retry budget (Finagle, linkerd), which keeps an outage from tripling its own load.
pub const RETRY_PERCENT: u32 = 10;
/// Targets behind one alias.
pub const TARGETS_MAX: usize = 16;
/// Replicas of one engine.
pub const REPLICAS_MAX: usize = 256;
/// Engines in one config.
pub const ENGINES_MAX: usize = 256;
/// Engines and replicas asked for their models at once: a list is some KiB, and a
/// thousand of them at once would be a burst for nothing.
pub const DISCOVERIES_MAX: usize = 32;
/// Models in one config, discovered ones included.
pub const MODELS_MAX: usize = 4_096;

/// Bytes of prompt hashed into one prefix block: about 512 tokens of English, the
/// block of the Mooncake traces.
pub const PREFIX_BLOCK_BYTES: usize = 2_048;
/// Prefix blocks looked at per call: 512 KiB of prompt. Beyond it the first blocks
/// have already decided.
pub const PREFIX_BLOCKS_MAX: usize = 256;
/// Bytes of the prefix index per replica.
pub const PREFIX_INDEX_BYTES_MAX: usize = 4 << 20;
/// Runs remembered per engine for affinity and attained service.
pub const RUNS_MAX: usize = 20_000;
/// Length sketches kept, one per model and tenant.
pub const SKETCHES_MAX: usize = 10_000;
/// Budget accounts kept in the kernel.
pub const BUDGETS_MAX: usize = 10_000;

/// Call records waiting for the disk. When full they are dropped and counted: the
/// recorder never slows a call.
pub const RECORDS_PENDING_MAX: usize = 16_384;
/// Access-log lines waiting to be written, likewise.
pub const LOG_LINES_PENDING_MAX: usize = 16_384;
/// Call records kept in the store (default), newest first.
pub const RECORDS_KEPT_MAX: u64 = 1_000_000;
/// API keys in one store. `serve` holds them all in memory: 100,000 at about 300
/// bytes is 30 MB.
pub const KEYS_MAX: usize = 100_000;
/// Rows that one question to the store answers: more is an export, not an answer.
pub const ROWS_MAX: usize = 10_000;
/// Call records deleted in one transaction: about 10 ms of disk, so that a budget
/// slice never waits long behind retention.
pub const PRUNE_ROWS_MAX: usize = 2_000;
/// Windows kept of one budget account: the running one, and the one before it for
/// calls that straddle the change.
pub const ACCOUNT_WINDOWS_KEPT: usize = 2;

/// Largest answer that a memo keeps (default): a long answer with tool calls is under 1 MiB, and it
/// is held in memory while it streams by.
pub const MEMO_ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Answers kept of one run (default): thirty times the longest agent runs in use.
pub const MEMO_RUN_ANSWERS_MAX: u64 = 10_000;
/// Bytes of answers kept of one run (default), so that one run does not push all others out.
pub const MEMO_RUN_BYTES_MAX: u64 = 64 << 20;
/// Runs of which answers are kept (default); the one unused for longest leaves first.
pub const MEMO_RUNS_MAX: u64 = 10_000;
/// Bytes of answers kept in the store, all runs together, likewise (default): what a small
/// volume can spare.
pub const MEMO_BYTES_MAX: u64 = 1 << 30;
/// Answers of a run that nobody asked for in so long are deleted (default): a script that crashed
/// is started again within days, and content should not lie about for longer.
pub const MEMO_IDLE_MS_MAX: u64 = 7 * 86_400_000;
/// Questions to and answers for the memo that wait for the disk. Beyond it calls are
/// performed as if they had no memo.
pub const MEMO_PENDING_MAX: usize = 1_024;
/// Identical calls in a row that a run may have answered before the next is held to be a
/// loop (default): above any agent's own retries, below what hurts.
pub const GUARD_REPEATS: u32 = 8;
/// Runs that the guard remembers; those not seen lately leave first. 20,000 at about 100
/// bytes is 2 MB.
pub const GUARD_RUNS_MAX: usize = 20_000;
/// Rounds of the same two to four requests between several agents of one tree of runs that
/// may be answered before the next is held to be a loop (default): whoever has said the same
/// to each other three times will say it for ever.
pub const GUARD_ROUNDS: u32 = 3;
/// Trees of runs that the guard remembers; those not seen lately leave first. 10,000 at
/// about 300 bytes is 3 MB.
pub const GUARD_TREES_MAX: usize = 10_000;

/// Runs kept in the store with what they used; those not seen for longest leave first.
/// 100,000 at about 300 bytes is 30 MB of disk.
pub const RUNS_KEPT_MAX: usize = 100_000;
/// Bytes of a run's name: room for any id with words around it.
pub const RUN_NAME_BYTES_MAX: usize = 256;
/// Questions for runs that wait for the disk: people ask them.
pub const RUN_QUESTIONS_MAX: usize = 64;
/// Runs that are stopped at once: more than anybody stops by hand; beyond it the next stop
/// is refused rather than an old one forgotten.
pub const RUNS_STOPPED_MAX: usize = 10_000;
/// Runs whose own budget is remembered; those not used lately leave first, without calls.
/// 20,000 at about 250 bytes is 5 MB.
pub const RUN_BUDGETS_MAX: usize = 20_000;
/// Runs remembered with their parent; those not seen lately leave first. 100,000 at about
/// 60 bytes is 6 MB.
pub const RUN_CHILDREN_MAX: usize = 100_000;
/// Generations of one tree of runs that may have calls (default): agents that delegate deeper
/// than this delegate for ever.
pub const GUARD_DEPTH: u32 = 16;
/// Generations of one tree of runs, however it is configured: every question to a tree is a
/// walk up it.
pub const RUN_DEPTH_MAX: usize = 64;
/// Runs of one tree with calls waiting or running at once (default): above the widest fan-out anybody
/// means, and below what one tenant may have waiting, so that a tree that doubles with each
/// generation is told before it stands in the way of the tenant's other work.
pub const RUN_TREE_LIVE_MAX: usize = 1_500;

/// Tool servers in one config: each is a process or a connection that is kept up.
pub const TOOL_SERVERS_MAX: usize = 64;
/// HTTP tools in one config: more than anybody writes by hand.
pub const HTTP_TOOLS_MAX: usize = 256;
/// Tools taken from one server: beyond a few dozen no model chooses well among them.
pub const SERVER_TOOLS_MAX: usize = 512;
/// Bytes of descriptions and schemas taken from one server: all of its tools at a generous
/// 4 KiB each.
pub const TOOL_LIST_BYTES_MAX: usize = 2 << 20;
/// Longest name of a tool: MCP's own limit.
pub const TOOL_NAME_BYTES_MAX: usize = 128;
/// Longest description of a tool: it stands in every prompt of every agent that has the tool.
pub const TOOL_ABOUT_BYTES_MAX: usize = 8 << 10;
/// Largest schema of a tool's arguments, likewise.
pub const TOOL_SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Words and variables of one tool server's command: more than anybody writes by hand.
pub const TOOL_WORDS_MAX: usize = 256;
/// Largest answer of a tool that goes to the model: 1 MiB is some 250,000 tokens, more than
/// most contexts hold. A larger one is an error with a hint.
pub const TOOL_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Largest message of a tool server: the largest answer with every byte escaped, and the
/// largest list.
pub const TOOL_MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Longest line of a tool server that is read to its end, though it was too large to be
/// taken from the start: an answer by mistake a hundred times too large is told as such, a
/// line that never ends is not read for ever.
pub const TOOL_LINE_BYTES_MAX: usize = 128 << 20;
/// Lines in a row that are no messages, after which a tool server is taken for none: banners
/// and progress of whatever starts it are shorter.
pub const TOOL_RUBBISH_LINES_MAX: usize = 1_000;
/// Messages a second that are read from one tool server, whatever it says: a tenth of a core
/// at most. Answers to as many calls would be a thousand busy agents.
pub const TOOL_LINES_PER_SECOND: u64 = 2_000;
/// Bytes a second, likewise: the largest message in a quarter of a second.
pub const TOOL_BYTES_PER_SECOND: u64 = 32 << 20;
/// Bytes a second of what a tool server writes to its standard error: it is read to be
/// thrown away, but for its end.
pub const TOOL_WORDS_BYTES_PER_SECOND: u64 = 1 << 20;
/// Longest error of a tool that is quoted to the model.
pub const TOOL_ERROR_BYTES_MAX: usize = 4 << 10;
/// Calls in flight at one tool server (default): most are one process with one event loop.
pub const TOOL_SERVER_CALLS_MAX: u32 = 16;
/// Calls that wait for a place at one tool server; beyond it they fail at once.
pub const TOOL_WAITING_MAX: usize = 1_024;
/// Longest wait for a tool's answer (default): what MCP's own SDKs wait.
pub const TOOL_WAIT_MS_MAX: u64 = 60_000;
/// A tool server must be up within this time: `npx` and `uvx` download it first.
pub const TOOL_START_MS_MAX: u64 = 60_000;
/// First pause before a tool server that ended is started again; doubles each time.
pub const TOOL_PAUSE_MS: u64 = 250;
/// Longest such pause: a server that is mended should not need anybody to say so.
pub const TOOL_PAUSE_MS_MAX: u64 = 30_000;
/// Bytes kept of what a tool server last wrote to its standard error: a stack trace.
pub const TOOL_WORDS_BYTES_KEPT: usize = 4 << 10;

/// Faults in one plan of the simulated engine, and commands waiting in it: more than
/// anybody writes by hand.
pub const FAULTS_MAX: usize = 64;
/// Lines of one script of the simulated engine.
pub const SCRIPT_LINES_MAX: usize = 10_000;
/// Rows read from one trace file: five times the longest published one-hour trace.
pub const TRACE_ROWS_MAX: usize = 100_000;
/// Cancel records that the simulated engine keeps, newest last.
pub const SIM_CANCELS_MAX: usize = 10_000;
/// Tokens of one simulated answer: no model writes more in one go.
pub const SIM_OUTPUT_MAX: u64 = 1_000_000;
/// Bytes of one simulated token (`token_bytes`): fat enough for any slow-reader test.
pub const SIM_TOKEN_BYTES_MAX: usize = 1 << 20;
/// Bytes that the simulated engine's leak fault keeps at most, so that a forgotten
/// test does not take the machine down.
pub const SIM_LEAK_BYTES_MAX: u64 = 4 << 30;
/// Connections to the simulated engine: the gateway needs one upstream for each of its
/// own, and tests come directly on top.
pub const SIM_CONNECTIONS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Choices (`n`) of one simulated answer, as with OpenAI.
pub const SIM_CHOICES_MAX: u64 = 128;
/// Inputs of one simulated embeddings call, as with OpenAI.
pub const SIM_INPUTS_MAX: usize = 2_048;
/// Longest simulated embedding: more than any model in use gives.
pub const SIM_DIMENSIONS_MAX: usize = 4_096;
/// Values in one example made from a JSON schema: a schema that refers to itself
/// through required fields has no finite one.
pub const SIM_EXAMPLE_VALUES_MAX: u32 = 200;

/// Largest config file: a thousand engines with every key set are a quarter of it.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Problems of one config that are listed; after a hundred nobody reads on.
pub const PROBLEMS_MAX: usize = 100;
/// Tenant rules in one config: each is looked at on every call of a tenant below it
/// once, on reload all together.
pub const TENANT_RULES_MAX: usize = 10_000;
/// Budgets of one tenant rule: four periods of three meters, and one for good each.
pub const TENANT_BUDGETS_MAX: usize = 15;
/// Headers added to the calls of one engine.
pub const ENGINE_HEADERS_MAX: usize = 32;
/// Output tokens reserved for a call that names no limit of its own, on a model
/// whose own limit is not configured (default): the default `max_tokens` of the
/// common servers is this or less.
pub const OUTPUT_TOKENS_MAX: u64 = 4_096;
/// Streams may finish for this long after SIGTERM (default): Kubernetes' own grace
/// period, so that the two end together.
pub const DRAIN_MS_MAX: u64 = 30_000;
/// Readiness fails for this long before the listener closes (default), so that load
/// balancers stop sending first.
pub const DRAIN_GRACE_MS: u64 = 500;

// Relations between limits that the code relies on.
const _: () = assert!(QUEUE_LEN_MAX >= TENANT_QUEUE_LEN_MAX, "one tenant's queue fits the engine's");
const _: () = assert!(RUN_TREE_LIVE_MAX < TENANT_QUEUE_LEN_MAX, "a tree is told before its tenant");
const _: () = assert!(CALLS_MAX >= QUEUE_LEN_MAX, "a full queue fits the kernel");
const _: () = assert!(BODY_BYTES_MAX < MEMORY_BYTES_MAX, "one body fits the byte budget");
const _: () = assert!(UPLOADS_MAX >= TENANT_UPLOADS_MAX, "one tenant's uploads are some of all");
const _: () = assert!(ATTEMPTS_CEILING >= ATTEMPTS_MAX, "the default may be configured");
const _: () = assert!(DRAIN_GRACE_MS < DRAIN_MS_MAX, "the grace lies inside the drain");
const _: () = assert!(MEMO_ANSWER_BYTES_MAX <= MEMO_RUN_BYTES_MAX, "one answer fits its run");
const _: () = assert!(MEMO_RUN_BYTES_MAX <= MEMO_BYTES_MAX, "one run fits the store");
const _: () = assert!(USAGE_BYTES_MAX < STREAM_WINDOW_BYTES, "a usage object fits a window");

/// Shards of the journal: enough that each can be moved alone later, few enough
/// that every group commit touches most of them.
pub const SHARDS: u8 = 16;
/// Largest payload kept inside a record or row; larger ones go to the blob store.
pub const PAYLOAD_BYTES_INLINE: u64 = 64 << 10;
/// Largest payload at all: what a tool may answer or a client may hand in.
pub const PAYLOAD_BYTES_MAX: u64 = 32 << 20;
/// Messages and answers in one agent's inbox, where its definition allows no fewer. More is
/// a producer that nobody slows down: the sender is told.
pub const INBOX_LEN_MAX: usize = 1_000;
/// Bytes of messages in one agent's inbox, without those in blobs: the row is written anew
/// with each of its records, inbox and all. One message always fits.
pub const INBOX_BYTES_MAX: usize = 1 << 20;
/// Runs that may wait for one agent: beyond it somebody asks faster than it works.
pub const RUN_QUEUE_LEN_MAX: usize = 1_000;
/// Effects of one run under way at once: the widest fan-out that a turn can ask for.
pub const EFFECTS_PENDING_MAX: usize = 1_000;
/// Changes of the state in one turn.
pub const CHANGES_MAX: usize = 10_000;
/// Digests of messages that an agent remembers, so that none is taken twice: several
/// times what can be under way to it when a crash comes.
pub const SEEN_MAX: usize = 2_000;
/// Levels of runs below one another, where a definition allows no fewer. Deeper delegation
/// is a loop.
pub const TREE_DEPTH_MAX: u16 = 16;
/// Children of one run alive at once, likewise: the widest fan-out that a turn can ask for.
pub const CHILDREN_LIVE_MAX: u32 = 1_000;
/// Suspended agents that have an alarm in memory, because they are due within minutes: at
/// about 300 bytes each 3 MB. The others are found on disk when their time is near.
pub const ALARMS_NEAR_MAX: usize = 10_000;
/// Agents known at once (default), suspended ones included, of which each is a row of about
/// 1 KB on the disk and nothing in memory.
pub const AGENTS_MAX: usize = 1_000_000;
/// Of these, agents of one root tenant (default) that have a key of somebody's choosing and
/// so are kept for good: an invented key per message must not use up what all have.
pub const TENANT_AGENTS_MAX: usize = 250_000;
/// Runs that are not over, of all agents (default).
pub const RUNS_LIVE_MAX: usize = 200_000;
/// Dead letters kept per shard; the oldest leave of the tenant (its first segment) with the most.
pub const LETTERS_MAX: usize = 10_000;
/// Topics of one tenant and all below it that somebody subscribed to: all are in memory, at
/// about 200 bytes and 100 for each subscriber.
pub const TOPICS_MAX: usize = 10_000;
/// Topics that one agent subscribed to: they are part of its row.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Subscribers of one topic.
pub const SUBSCRIBERS_MAX: usize = 10_000;
/// Monitors of one agent and links to it: each is written with its row, at about 60 bytes. Whoever
/// has more to tell publishes.
pub const TIES_MAX: usize = 256;
/// Resources of one tenant and all below it that somebody holds: all are in memory, at about
/// 200 bytes and 150 for each holder.
pub const LEASES_MAX: usize = 10_000;
/// Waiting acquirers of one resource.
pub const LEASE_WAITERS_MAX: usize = 10_000;
/// Bytes in a key of a state, value, resource or topic.
pub const NAME_LEN_MAX: usize = 256;

/// Rules of one gate: a few hundred are a policy, more are a database.
pub const GATE_RULES_MAX: usize = 1_000;
/// Conditions of one rule.
pub const GATE_CONDITIONS_MAX: usize = 32;
/// Values that one condition compares with: a longer list belongs in a tool.
pub const GATE_VALUES_MAX: usize = 256;
/// Work that the progress guard remembers of one run. It is written with every turn, at
/// about 25 bytes each; a circle of more different works than this is told by its turns.
pub const TWINS_MAX: usize = 32;
/// Messages that the progress guard remembers of one run, likewise.
pub const GUARD_LETTERS_MAX: usize = 16;
/// Restarts of one run that are remembered, and so the highest intensity of a supervision.
pub const RESTARTS_MAX: usize = 64;
/// Tenants that a pool remembers though they neither wait nor are owed anything, for what
/// they had above their share; those with the least of it leave first.
pub const POOL_TENANTS_IDLE_MAX: usize = 10_000;
/// Run trees that a pool remembers though they do not wait, for what they have been served;
/// those not seen lately leave first. 20,000 at about 150 bytes is 3 MB.
pub const POOL_TREES_IDLE_MAX: usize = 20_000;
const _: () = assert!(6 * TOOL_ANSWER_BYTES_MAX <= TOOL_MESSAGE_BYTES_MAX, "an answer fits a message");
const _: () = assert!(TOOL_LIST_BYTES_MAX <= TOOL_MESSAGE_BYTES_MAX, "a list fits a message");

/// Bytes of one agent's definition: instructions as long as a short book, and a schema.
pub const DEFINITION_BYTES_MAX: usize = 512 << 10;
/// Types of agents: hundreds are in use where anybody counts.
pub const DEFINITIONS_MAX: usize = 10_000;
/// Patterns in a definition's list of tools, and tools that they may select: a model
/// chooses badly among more than a few dozen, and each is sent with every call.
pub const AGENT_TOOLS_MAX: usize = 256;
/// Rules under `[[permissions]]` of one definition: each is looked at for every effect.
pub const PERMISSIONS_MAX: usize = 256;
/// Patterns of one such rule, and values of one of its conditions.
pub const PERMISSION_LIST_MAX: usize = 64;
/// Votes on one effect that may be handed on: a row holds each for as long as people think.
pub const VOTES_HANDED_MAX: usize = 32;
/// How often one vote may be handed on, from one to the next: beyond it nobody knows any
/// more who answers for it.
pub const VOTE_CHAIN_MAX: usize = 3;
/// Facts of one effect that rules can see: every argument, lists included. A call with
/// more is refused, since a rule must not be passed by what it cannot see.
pub const FACTS_MAX: usize = 10_000;
/// Tool calls that one answer of a model may hold: the widest fan-out in use is a few
/// dozen, and each is an effect of its own.
pub const TOOL_CALLS_MAX: usize = 256;
/// Repairs of an output that a definition may allow: a model that fails ten times over
/// will not succeed.
pub const REPAIRS_MAX: u32 = 10;
/// Records or rows of the journal read in one go by checks, exports and sweeps: some
/// milliseconds of work, so that whoever waits for the disk waits no longer.
pub const JOURNAL_PAGE_ROWS: usize = 1_000;
/// Faults that a look at the rows of agents and runs tells of: one fault may show in a
/// hundred rows, and nobody reads more.
pub const BOOKS_WRONG_MAX: usize = 100;
/// Bytes of a value whose words can be searched for: the index is about as large as what
/// it covers, and a note says what it is about at its beginning.
pub const VALUE_INDEXED_BYTES_MAX: usize = 16 << 10;
/// Words in one search of values.
pub const SEARCH_WORDS_MAX: usize = 32;
/// Blobs remembered as put since the last sweep; after more of them a sweep removes
/// nothing. 100,000 blobs are 6 GB at least.
pub const BLOBS_FRESH_MAX: usize = 100_000;
/// Blobs that a sweep finds named before it gives up: 1,000,000 digests are 50 MB of
/// memory for 64 GB of blobs at least.
pub const BLOBS_NAMED_MAX: usize = 1_000_000;
/// Bytes of journal and blobs on the disk (default): a month of 10,000 runs a day.
pub const JOURNAL_BYTES_MAX: u64 = 20 << 30;
/// Runs that are over are kept for so long (default): a week, within which people ask.
pub const RETENTION_MS: u64 = 7 * 86_400_000;
/// Records that a listener of events may lag behind before it must ask again by offset.
pub const EVENTS_LAG_MAX: usize = 4_096;
/// Pieces of a run's talk that a listener may lag behind: some seconds of one model's
/// answer. What it misses comes with the answer's end.
pub const TALK_LAG_MAX: usize = 256;
/// Pieces of a run's talk on their way to one client: beyond it the talk waits for the
/// client, and lags.
pub const TALK_PIECES_MAX: usize = 32;
/// Longest that a request waits for a run's end: most proxies between cut it sooner.
pub const RUN_WAIT_MS_MAX: u64 = 600_000;
/// Clients that follow events of runs at once: each is a task and a socket.
pub const FOLLOWERS_MAX: usize = 1_000;
/// Bytes of the journal's disk that are left to what is under way: nothing new begins below
/// this, or below a twentieth of a smaller disk, whatever the budget says. Some thousand turns.
pub const DISK_FREE_BYTES_MIN: u64 = 64 << 20;
/// Bytes of runs' states kept in memory between their turns: the conversations of a thousand
/// busy runs of 60 KB each. Beyond it those used longest ago are read from the disk again.
pub const STATES_BYTES_MAX: usize = 64 << 20;
/// Questions to the journal that wait for a worker: each is a connection that waits too.
pub const JOURNAL_QUESTIONS_MAX: usize = 512;
/// Largest payload that an answer of the API shows: larger ones are documents, and are
/// named by digest and size.
pub const SHOWN_BYTES_MAX: u64 = 1 << 20;
/// Bytes of payloads that one answer of the API shows in all; what comes after is named by
/// its size.
pub const ANSWER_SHOWN_BYTES_MAX: u64 = 4 << 20;
/// Records that one look at a run's turns reads: more turns are looked at one by one.
pub const TURN_RECORDS_MAX: usize = 20_000;
/// Pieces of an answer that are made ahead of the client who reads it.
pub const FEED_PIECES_MAX: usize = 16;
/// Things that operators may have stopped at once: each is held against every turn.
pub const HALTS_MAX: usize = 1_000;
