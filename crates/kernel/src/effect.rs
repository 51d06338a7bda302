//! Everything the kernel can ask of the shell, closed in one enum.

use std::sync::Arc;

use seawall_model::{
    At, CallId, Cause, Code, EngineId, Finish, MicroUsd, Millis, Outcome, ReplicaId, Tokens, Usage, Waits,
};

/// One thing to do. Effects are performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the call to this replica now.
    Dispatch(Grant),
    /// The call is refused; nothing more will be said of it but its [`Effect::Settle`].
    Refuse(Refusal),
    /// The call's run was stopped: end its attempt and answer with
    /// [`crate::Input::Cancelled`].
    Halt {
        /// The call.
        call: CallId,
    },
    /// The call is over: exactly one per submitted call, the last word on it (I6).
    Settle(Settlement),
    /// Make this budget slice durable, then answer with [`crate::Input::Drawn`].
    Draw {
        /// `prefix#meter/period`.
        account: Arc<str>,
        /// Start of the window.
        window: At,
        /// Spent is at most this from now on.
        ceiling: u64,
    },
    /// What is really spent, to be written when convenient.
    Spent {
        /// The account.
        account: Arc<str>,
        /// Start of the window.
        window: At,
        /// So much.
        spent: u64,
    },
    /// Ask this replica whether it is well and answer with [`crate::Input::Probed`].
    Probe {
        /// The replica.
        replica: ReplicaId,
    },
}

/// Leave to send a call to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The call.
    pub call: CallId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The engine.
    pub engine: EngineId,
    /// The replica.
    pub replica: ReplicaId,
    /// Which of the targets this is, as an index into [`crate::Submit::targets`].
    pub target: u8,
    /// Waiting so far, by cause.
    pub waits: Waits,
    /// How often its run, or its tree of runs, has gone round, where the guard warns of it;
    /// else 0.
    pub repeats: u32,
}

/// A call turned away, before any attempt or after the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The call.
    pub call: CallId,
    /// The row of the table.
    pub code: Code,
    /// When trying again makes sense.
    pub retry_after: Option<Millis>,
    /// What it was waiting for, if it waited.
    pub cause: Option<Cause>,
    /// The account, prefix or engine that turned it away, for the message.
    pub what: Option<Arc<str>>,
}

/// The last word on a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The call.
    pub call: CallId,
    /// How it ended.
    pub outcome: Outcome,
    /// The engine of the last attempt.
    pub engine: Option<EngineId>,
    /// The replica of the last attempt.
    pub replica: Option<ReplicaId>,
    /// Attempts made.
    pub attempts: u32,
    /// Waiting by cause.
    pub waits: Waits,
    /// What was used in all attempts together.
    pub usage: Usage,
    /// Output tokens that were reserved.
    pub reserved_output: Tokens,
    /// What was charged.
    pub cost: MicroUsd,
    /// Why generation ended.
    pub finish: Option<Finish>,
}
