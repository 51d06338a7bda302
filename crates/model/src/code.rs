//! The closed table of error codes. One page per code stands under `docs/errors/`,
//! held to this table by `cargo x tidy`.

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client sent something that cannot be served.
    Caller,
    /// The engine failed, refused or is out of reach.
    Engine,
    /// Seawall itself, or how it is configured.
    Us,
}

/// Whether the same call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    Never,
    /// At once.
    Now,
    /// After the time in `retry-after`.
    After,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// The stable string that clients and alerts match on.
    pub name: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Whose doing.
    pub blame: Blame,
    /// May it be sent again?
    pub retry: Retry,
    /// What happened, where nothing more exact is known.
    pub says: &'static str,
    /// What to do.
    pub hint: &'static str,
}

macro_rules! table {
    ($($code:ident $name:literal $status:literal $blame:ident $retry:ident $says:literal $hint:literal)*) => {
        /// A kind of refusal or failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Code {
            $(#[doc = $says] $code,)*
        }

        /// Every row, in the order of [`Code`].
        pub const TABLE: &[Row] = &[
            $(Row { code: Code::$code, name: $name, status: $status, blame: Blame::$blame,
                    retry: Retry::$retry, says: $says, hint: $hint },)*
        ];
    };
}

table! {
    BadJson "bad_json" 400 Caller Never
        "The request body is not valid JSON."
        "Check the body with a JSON linter; the position of the first mistake is in the message."
    BadField "bad_field" 400 Caller Never
        "A field of the request has a wrong type or value."
        "See the field named in `param` in the API reference of the protocol you speak."
    BadHeader "bad_header" 400 Caller Never
        "A request header cannot be understood."
        "See the header named in `param`; Seawall's own headers are listed in docs/guide.md."
    BodyTooLarge "body_too_large" 413 Caller Never
        "The request body is larger than the configured limit."
        "Send less, upload files by URL, or raise `limits.body_bytes_max`."
    BodyTimeout "body_timeout" 408 Caller Now
        "The request body did not arrive in time."
        "Check the network between the client and Seawall; the limit is `limits.body_wait_ms_max`."
    BadKey "bad_key" 401 Caller Never
        "The API key is missing or not known here."
        "Send `Authorization: Bearer KEY` or `x-api-key: KEY`; make one with `seawall key add`."
    ModelForbidden "model_forbidden" 403 Caller Never
        "This key may not use that model."
        "Ask for the model to be added to the tenant's `models` list."
    PathForbidden "path_forbidden" 403 Caller Never
        "This key may not use paths that pass through to an engine."
        "Send a key made with `seawall key add --pass-through`: files, batches and fine-tunes are the operator's."
    AdminOnly "admin_only" 403 Caller Never
        "This path is for admin keys only."
        "Send an admin key; make one with `seawall key add --admin`."
    ApproverOnly "approver_only" 403 Caller Never
        "This key is not among those that may decide this."
        "`seawall inbox` shows who may: the rule's approvers, or any admin where it names none."
    RunStopped "run_stopped" 403 Caller Never
        "This run, or one above it, was stopped by an operator."
        "Ask whoever stopped it; `seawall halts` lists what is stopped, `seawall unhalt` and `seawall run resume` let it go on."
    ModelUnknown "model_unknown" 404 Caller Never
        "No model of that name is configured or discovered."
        "`seawall models` and `GET /v1/models` list the names that work."
    AgentUnknown "agent_unknown" 404 Caller Never
        "No agent of that type is defined."
        "`seawall agents` lists types, `seawall agents --list` agents; definitions are TOML files in the folder `agents.folder`."
    RunUnknown "run_unknown" 404 Caller Never
        "No run of that name is known."
        "`seawall runs` lists them; runs that ended are kept for `agents.retention`."
    EffectUnknown "effect_unknown" 404 Caller Never
        "No effect of that name waits for an answer."
        "`seawall inbox` lists what waits for people; what is not there was decided, or its run is over: see `seawall events RUN`."
    ValueUnknown "value_unknown" 404 Caller Never
        "The tenant's store has no value by that key."
        "`GET /seawall/values` lists a tenant's keys; another tenant's are named by `tenant`."
    LetterUnknown "letter_unknown" 404 Caller Never
        "There is no dead letter of that name."
        "`seawall letters` lists them; it may have been sent again or thrown away already."
    RunCancelled "run_cancelled" 409 Caller Never
        "The run was cancelled."
        "Whoever cancelled it is named in the run's history; start it anew."
    RunExpired "run_expired" 504 Caller Never
        "The run took longer than it may."
        "Raise `limits.wall` of the agent, or see where the time went with `seawall run ID`."
    RunFailed "run_failed" 422 Caller Never
        "The run failed."
        "`seawall debug RUN` shows the turn at which it did, and what it saw."
    AllowanceSpent "allowance_spent" 422 Caller Never
        "The run, or one above it, has used what it may."
        "Raise the limit that is named in the agent's definition or at the start; `seawall run ID` shows who spent it."
    GateDenied "gate_denied" 403 Caller Never
        "A rule forbids this effect."
        "The rule is named in the message; rules stand under `[[permissions]]` of the definition and `[[agents.permissions]]` of the config."
    ApprovalDenied "approval_denied" 403 Caller Never
        "A human said no, or nobody said yes in time."
        "`seawall run ID` shows who was asked and who answered."
    AgentQuarantined "agent_quarantined" 409 Us Never
        "The agent was taken out of service."
        "`seawall why AGENT` says why; `seawall agent release AGENT` puts it back."
    NoProgress "no_progress" 422 Caller Never
        "The run went in circles and was stopped."
        "`seawall run ID` shows what it repeated; `guard` in its definition sets the rule."
    MailboxFull "mailbox_full" 429 Caller After
        "The agent has as many messages waiting as it may."
        "Send fewer; `seawall why AGENT` says what it is doing."
    TooManyAgents "too_many_agents" 429 Caller Never
        "The tenant has as many agents with a key of their own as it may."
        "Address agents that exist, or a type alone: such an agent is gone when its task is over."
    AgentsFull "agents_full" 503 Us After
        "As many runs are alive as may be."
        "Retry after the time given, or raise `agents.runs_max`."
    DiskFull "disk_full" 503 Us After
        "The journal's disk budget is used up, so nothing durable can begin."
        "Raise `agents.disk_bytes_max` or lower `agents.retention` and reload, or free space on a full disk: it is looked at every second, and runs under way go on meanwhile."
    VersionConflict "version_conflict" 409 Caller Never
        "The value was changed by somebody else in the meantime."
        "Read it again, and write with the version you read."
    LeaseLost "lease_lost" 409 Caller Never
        "The lease is held by somebody else by now."
        "Acquire it again; anything done with the old token is refused."
    ToolUnknown "tool_unknown" 404 Caller Never
        "No tool of that name is configured."
        "`seawall tools` lists them; tool servers stand under `[[tool_server]]` in the config."
    ToolFailed "tool_failed" 502 Engine Now
        "The tool failed."
        "See the tool server's own log; the message has what it said."
    OutputInvalid "output_invalid" 422 Caller Never
        "The agent's output does not fit its schema, not even after being asked to mend it."
        "See `output.schema` in its definition, or allow more `output.repairs`."
    PathUnknown "path_unknown" 404 Caller Never
        "There is nothing at this path."
        "Inference paths start with /v1/, those of agents with /seawall/; operations paths are /healthz, /readyz and /metrics."
    MethodNotAllowed "method_not_allowed" 405 Caller Never
        "This path does not take that method."
        "The `allow` header of the answer and its message name what it takes."
    NotTranslatable "not_translatable" 400 Caller Never
        "The request uses a feature that the target engine's protocol does not have."
        "Drop the feature named in the message, or route the model to an engine that has it."
    ContextTooLong "context_too_long" 400 Caller Never
        "The prompt and the output asked for do not fit this engine."
        "Shorten the prompt, lower max_tokens, or use a model with a longer context."
    RateLimited "rate_limited" 429 Caller After
        "The tenant's configured rate is used up and the wait would be too long."
        "Slow down, or raise the tenant's `rate` in the config; `retry-after` says when."
    ConcurrencyLimited "concurrency_limited" 429 Caller After
        "The tenant has its limit of calls in flight and the wait would be too long."
        "Send fewer calls at once, or raise the tenant's `calls_max`."
    BudgetExhausted "budget_exhausted" 429 Caller After
        "A budget that covers this tenant is spent."
        "`retry-after` says when the period ends; raise the budget to go on sooner."
    LoopStopped "loop_stopped" 422 Caller Never
        "This run goes round in circles: what it asks has been answered before, or its tree of runs grows without end."
        "Send a request that differs, or begin a new run in `x-seawall-run`; `guard.repeats` and `guard.action` set the rule."
    QueueFull "queue_full" 429 Us After
        "The queue for this engine is full."
        "Retry after the time given; add replicas or raise `queue.len_max` if this persists."
    TenantQueueFull "tenant_queue_full" 429 Caller After
        "This tenant has as much work waiting as it may."
        "Send fewer calls at once; other tenants are not affected by yours."
    QueueTimeout "queue_timeout" 503 Us After
        "The call waited its longest and no engine had room."
        "Retry after the time given; `x-seawall-wait-cause` says what it waited for."
    DeadlineMissed "deadline_missed" 429 Us After
        "The call could not meet its deadline, so it was not started."
        "Give it longer in `x-seawall-deadline-ms`, or retry when the load is lower."
    DeadlinePassed "deadline_passed" 504 Us Now
        "The deadline passed while the engine was answering."
        "Give it longer in `x-seawall-deadline-ms`, or ask for fewer tokens."
    EngineDown "engine_down" 503 Engine After
        "Every engine for this model is out of reach or failing."
        "See `seawall models` and the engine's own log; calls flow again as soon as a probe succeeds."
    EngineRefused "engine_refused" 502 Engine Never
        "The engine refused the call."
        "The engine's own message is included; the request or the engine's configuration must change."
    EngineRejectedKey "engine_rejected_key" 502 Us Never
        "The engine rejected Seawall's credentials."
        "Check the engine's `key_env` or `key_file`; the client's key is not involved."
    EngineRateLimited "engine_rate_limited" 429 Engine After
        "The engine's provider is limiting the rate."
        "Retry after the time given, or add a second target for this model."
    EngineFailed "engine_failed" 502 Engine Now
        "The engine failed while answering."
        "Retry; if it persists see the engine's own log under the trace id."
    EngineTimeout "engine_timeout" 504 Engine Now
        "The engine sent nothing for too long."
        "The engine may be hung; the limits are `first_token_ms_max` and `stall_ms_max`."
    EngineGarbled "engine_garbled" 502 Engine Now
        "The engine's answer could not be understood."
        "Check that the engine's `kind` in the config is right."
    EngineCut "engine_cut" 502 Engine Now
        "The engine ended its answer in the middle."
        "What was received is incomplete; retry the call."
    AnswerTooLarge "answer_too_large" 502 Engine Never
        "The engine's answer is larger than can be translated in memory."
        "Stream the call, or raise `limits.answer_bytes_max`."
    MemoryFull "memory_full" 503 Us After
        "Seawall's byte budget for calls in flight is used up."
        "Retry after the time given, or raise `limits.memory_bytes_max`."
    UploadsFull "uploads_full" 503 Us After
        "As many uploads are under way as may be at once."
        "Retry after the time given, or raise `limits.uploads_max` or `limits.tenant_uploads_max`."
    ConnectionsFull "connections_full" 503 Us After
        "Seawall holds as many connections as it may."
        "Retry after the time given, or raise `limits.connections_max`."
    Draining "draining" 503 Us Now
        "Seawall is shutting down and takes no new calls."
        "Retry: another instance should answer."
    Internal "internal" 500 Us Now
        "Seawall failed in a way it should not have."
        "Please report it with the trace id."
}

impl Code {
    /// This code's row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        // The table is made from the same list as the enum, in the same order.
        &TABLE[self as usize]
    }

    /// The stable string.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// The code with this stable string.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_row() {
        for row in TABLE {
            assert_eq!(row.code.row().name, row.name);
            assert_eq!(Code::from_name(row.name), Some(row.code));
        }
    }

    #[test]
    fn names_are_unique_and_statuses_are_errors() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!((400..600).contains(&row.status), "{} is no error status", row.name);
            assert!(TABLE[at + 1..].iter().all(|other| other.name != row.name), "{} twice", row.name);
        }
    }

    #[test]
    fn refusals_to_wait_for_carry_a_status_that_clients_back_off_on() {
        for row in TABLE.iter().filter(|row| row.retry == Retry::After) {
            assert!(matches!(row.status, 429 | 503), "{}", row.name);
        }
    }
}
