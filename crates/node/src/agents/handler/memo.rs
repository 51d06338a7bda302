//! Where the loop of a run stands between two turns.

use seawall_model::{Code, Payload};
use serde::{Deserialize, Serialize};

use super::Stop;

/// The format's version. A reader of a later one reads all earlier ones.
const VERSION: u8 = 1;

/// What the run waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Doing {
    /// Nothing.
    #[default]
    Nothing,
    /// What memory has on the task.
    Recalling,
    /// The model.
    Thinking,
    /// The model, for a summary of messages before `until`.
    Summarising,
}

/// A tool call under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The call's id.
    pub(super) id: String,
    /// The place in the conversation that its outcome will have.
    pub(super) at: u32,
}

/// The memo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    v: u8,
    /// The number of the next message.
    pub(super) next: u32,
    /// What it waits for.
    pub(super) doing: Doing,
    /// Tool calls under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) calls: Vec<Waiting>,
    /// How often an output was to be mended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) repairs: u32,
    /// Pieces that the present answer has, but for its last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) pieces: u32,
    /// Answers in a row in which not one call was sound.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) blunders: u32,
    /// How often the engine found the prompt too long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) squeezed: u32,
    /// Messages from the third to before this one are being summarised.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) until: u32,
    /// The version of the definition that the instructions are from.
    #[serde(default)]
    pub(super) version: String,
}

impl Memo {
    /// A run's first.
    pub(super) fn new() -> Self {
        Self { v: VERSION, ..Self::default() }
    }

    /// Reads what [`Self::payload`] wrote.
    pub(super) fn read(payload: &Payload) -> Result<Self, Stop> {
        let memo: Option<Self> = payload.here().and_then(|bytes| serde_json::from_slice(bytes).ok());
        match memo {
            Some(memo) if memo.v <= VERSION => Ok(memo),
            Some(memo) => {
                let why = format!("The run's state is of version {}, from a later Seawall.", memo.v);
                Err(Stop::new(Code::Internal, why))
            }
            None => Err(Stop::new(Code::Internal, "The run's state cannot be read.")),
        }
    }

    pub(super) fn payload(&self) -> Payload {
        serde_json::to_vec(self).expect("numbers and texts are JSON").into()
    }
}

/// The memo is written with every turn: what says nothing is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
