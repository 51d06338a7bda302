//! Who is wanted: effects in doubt, approvals and questions, and whose they are to decide.
//!
//! An agent's row has bits for what people are wanted for, and the names of those who are
//! asked to approve something of it, so that an approver of another tenant finds what is
//! theirs without anybody reading all that others wait for.

use rusqlite::{Transaction, params};
use seawall_model::durable::{AgentRow, Pending, Stage};
use seawall_model::effect::{Person, Work};
use seawall_model::{Address, limits};

use super::codec::decode;
use super::reader::{Reader, under};
use super::rows::needs;
use crate::{Error, column};

/// What people are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To say whether an effect was done: the in-doubt inbox.
    Doubt,
    /// To allow an effect.
    Approval,
    /// To answer a question.
    Promise,
}

/// An effect that wants somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The number of its agent's row: what pages go by.
    pub row: u64,
    /// Whose.
    pub agent: Address,
    /// The effect.
    pub effect: Pending,
}

/// Some of those that are wanted, the oldest agents' first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The effects.
    pub wanted: Vec<Wanted>,
    /// There may be more after the agent of this number.
    pub next: Option<u64>,
}

/// Whose effects are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whose<'a> {
    /// Those of a tenant and all below it; `None` is of all.
    pub tenant: Option<&'a str>,
    /// And those of other tenants that this one may approve.
    pub approver: Option<&'a Person>,
}

impl Need {
    const fn bit(self) -> i64 {
        match self {
            Self::Doubt => needs::DOUBT,
            Self::Approval => needs::APPROVAL,
            Self::Promise => needs::PROMISE,
        }
    }

    const fn is_of(self, effect: &Pending) -> bool {
        match self {
            Self::Doubt => matches!(effect.stage, Stage::Doubtful { .. }),
            Self::Approval => matches!(effect.stage, Stage::Approving { .. }),
            Self::Promise => {
                matches!((&effect.stage, &effect.work), (Stage::Waiting, Work::Promise { .. }))
            }
        }
    }
}

/// A name as it stands in the column `asks`.
fn marked(name: &str) -> String {
    format!("\n{name}\n")
}

/// Notes who is asked to approve something of an agent: those whom rules name, and to whom
/// votes were or will be handed. What an agent that asks nobody has there is not looked at.
pub(super) fn keep_asked(transaction: &Transaction<'_>, agent: &AgentRow) -> Result<(), Error> {
    let mut asks = String::new();
    for effect in &agent.pending {
        let Some(approval) = effect.approval() else { continue };
        let deputy = approval.deputy.iter().map(|deputy| &deputy.to);
        let handed = effect.handed.iter().map(|handed| &handed.to);
        for name in approval.approvers.iter().chain(deputy).chain(handed) {
            let name = marked(name);
            if !asks.contains(&name) {
                asks.push_str(&name);
            }
        }
    }
    let sql = "UPDATE agents SET asks = ?2 WHERE address = ?1 AND asks <> ?2";
    transaction.prepare_cached(sql)?.execute(params![agent.address.to_string(), asks])?;
    Ok(())
}

impl Reader {
    /// Effects that want somebody, of agents after the one of the last page; about so many:
    /// those of one agent stand on one page.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn wanted(&self, need: Need, whose: Whose<'_>, after: u64, limit: usize) -> Result<Page, Error> {
        let names = whose.approver.filter(|_| need == Need::Approval).map_or_else(Vec::new, |person| {
            let tenants = person.tenant.prefixes();
            std::iter::once(&*person.name).chain(tenants).map(marked).collect::<Vec<_>>()
        });
        let asked: String = (0..names.len()).map(|nth| format!(" OR instr(asks, ?{})", nth + 4)).collect();
        let sql = format!(
            "SELECT id, body FROM agents
             WHERE needs > 0 AND needs & ?2 <> 0 AND id > ?3 AND ({}{asked}) ORDER BY id",
            under(1)
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        statement.raw_bind_parameter(1, whose.tenant)?;
        statement.raw_bind_parameter(2, need.bit())?;
        statement.raw_bind_parameter(3, column::amount(after))?;
        for (nth, name) in names.iter().enumerate() {
            statement.raw_bind_parameter(nth + 4, name)?;
        }
        let mut rows = statement.raw_query();
        let mut page = Page::default();
        while let Some(row) = rows.next()? {
            if page.wanted.len() >= limit.min(limits::ROWS_MAX) {
                page.next = page.wanted.last().map(|last| last.row);
                break;
            }
            let id = column::unsigned(row.get(0)?);
            let agent: AgentRow = decode("an agent's row", row.get_ref(1)?.as_blob()?)?;
            let theirs = whose.tenant.is_none_or(|path| agent.address.tenant.is_under(path));
            for effect in agent.pending.into_iter().filter(|effect| need.is_of(effect)) {
                // An agent may ask several, each about something else.
                if theirs || whose.approver.is_some_and(|person| effect.has_vote(person)) {
                    page.wanted.push(Wanted { row: id, agent: agent.address.clone(), effect });
                }
            }
        }
        Ok(page)
    }
}
