//! What of a long conversation is kept: tools' outputs leave first, then old messages, for
//! a summary or for nothing. Messages leave in groups, so that no output is left without
//! the call that it answers.

use seawall_model::Tokens;
use seawall_wire::talk::{Message, Role, estimate};

use super::draft::{Draft, FIRST};
use super::log::Entry;

/// Outputs as short as what is said in their place stay.
const OUTPUT_BYTES_MIN: u64 = 200;

/// What it takes for a conversation to fit its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Nothing.
    Fits,
    /// Old messages were forgotten.
    Forgot,
    /// Messages before this one are to be summarised.
    Summarise(u32),
}

/// Messages that must stay or leave together.
struct Group {
    /// The number of its first message.
    first: u32,
    messages: u32,
    tokens: Tokens,
}

impl Draft<'_> {
    /// The longest prompt and answer together.
    pub(super) fn window(&self) -> Tokens {
        let window = self.definition.context.window;
        let window = self.view.terms.context_tokens_max.map_or(window, |most| window.min(most));
        Tokens(window.0 >> self.memo.squeezed.min(16)).max(Tokens(1))
    }

    /// Makes the conversation fit its window, given the estimate of the prompt as it is and
    /// the longest answer, or says what must be summarised first.
    pub(super) fn fit(&mut self, prompt: Tokens, output: Tokens) -> Fit {
        let window = self.window();
        // Where the answer may fill the window, the prompt still has a quarter of it.
        let room = window.saturating_sub(output).max(Tokens(window.0 / 4));
        if prompt <= room {
            return Fit::Fits;
        }
        let groups = groups(&self.log.entries());
        // Well below the room, so that it is not done again with the next message.
        let goal = Tokens(room.0 / 4 * 3);
        let Some(until) = leaving(&groups, self.definition.context.keep_last, prompt, goal) else {
            return Fit::Fits;
        };
        if self.definition.context.summarise {
            return Fit::Summarise(until);
        }
        self.forget(until);
        Fit::Forgot
    }

    /// Messages before this one are no more, but for instructions and task.
    pub(super) fn forget(&mut self, until: u32) {
        for entry in self.log.entries() {
            if (FIRST..until).contains(&entry.number) {
                self.log.drop(&entry.key);
            }
        }
    }

    /// Outputs of tools leave after so many answers.
    pub(super) fn drop_outputs(&mut self) {
        let Some(after) = self.definition.context.drop_tool_output_after else {
            return;
        };
        let mut answers = 0;
        for entry in self.log.entries().iter().rev() {
            match entry.role() {
                Role::Assistant => answers += 1,
                Role::Tool if answers >= after && entry.len() > OUTPUT_BYTES_MIN => {
                    let call = entry.message().map(|message| message.call).unwrap_or_default();
                    let told = format!("[{} bytes of output left out; call again if needed]", entry.len());
                    self.log.replace(entry, &Message::outcome(call, told));
                }
                _ => {}
            }
        }
    }
}

fn groups(entries: &[Entry]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.number >= FIRST) {
        let tokens = estimate(&[&entry.json()]).likely;
        match groups.last_mut() {
            Some(group) if entry.role() == Role::Tool => {
                group.messages += 1;
                group.tokens += tokens;
            }
            _ => groups.push(Group { first: entry.number, messages: 1, tokens }),
        }
    }
    groups
}

/// The first message that stays, if any is to leave: as few leave as bring the prompt to the
/// goal; the last `keep` stay unless nothing else is left to leave, and the last group always.
fn leaving(groups: &[Group], keep: u32, prompt: Tokens, goal: Tokens) -> Option<u32> {
    let mut kept = 0;
    let old = groups.iter().rev().take_while(|group| {
        kept += group.messages;
        kept <= keep
    });
    let old = groups.len() - old.count();
    let most =
        if old == 0 { groups.len().saturating_sub(1) } else { old.min(groups.len().saturating_sub(1)) };
    let mut left = prompt;
    let mut leave = 0;
    while leave < most && left > goal {
        left = left - groups[leave].tokens;
        leave += 1;
    }
    (leave > 0).then(|| groups[leave].first)
}
